CREATE OR REPLACE TRIGGER configuration_params_tell
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON configuration_params
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_configuration_tell();
