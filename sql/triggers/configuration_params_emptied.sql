CREATE OR REPLACE TRIGGER configuration_params_emptied
    BEFORE TRUNCATE ON configuration_params
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_configuration_emptied();
