CREATE OR REPLACE TRIGGER configuration_params_stamp
    BEFORE INSERT OR UPDATE ON configuration_params
    FOR EACH ROW
    EXECUTE FUNCTION listener_configuration_stamp();
