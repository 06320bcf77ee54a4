-- Numbers that must never repeat while anybody may still hold an older one.

-- One per claim statement; a settle names it, so that a late result of an older claim matches nothing.
CREATE SEQUENCE IF NOT EXISTS listener_claim_id AS bigint;

-- One per Postgres session of a listener; it is also the second half of an advisory lock key, hence integer.
CREATE SEQUENCE IF NOT EXISTS listener_session_key AS integer MINVALUE 1 CYCLE;
