-- Who changes the configuration: the role that logged in, and its program.
CREATE OR REPLACE FUNCTION listener_who() RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT concat(session_user, ' (' || nullif(current_setting('application_name'), '') || ')');
$$;
