CREATE OR REPLACE TRIGGER configuration_params_mirror_insert
    AFTER INSERT ON configuration_params
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_configuration_mirror();
