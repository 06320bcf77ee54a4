CREATE OR REPLACE TRIGGER configuration_params_changed
    AFTER INSERT OR UPDATE OR DELETE ON configuration_params
    FOR EACH ROW
    EXECUTE FUNCTION listener_configuration_changed();
