CREATE OR REPLACE TRIGGER configuration_params_mirror_update
    AFTER UPDATE ON configuration_params
    REFERENCING OLD TABLE AS former NEW TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_configuration_mirror();
