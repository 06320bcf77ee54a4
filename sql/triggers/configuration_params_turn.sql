CREATE OR REPLACE TRIGGER configuration_params_turn
    BEFORE INSERT OR UPDATE OR DELETE ON configuration_params
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_configuration_turn();
