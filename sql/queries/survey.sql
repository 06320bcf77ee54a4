-- The survey: what the safety poll asks, of all queues at once.

-- name: survey_all
-- Everything that the safety poll asks, in one round trip for all queues: a row for each, see `survey` in queue.sql; the
-- first one brings the configuration along.
SELECT queue.number, queue.next_due_s, queue.has_stranded, queue.has_strays, queue.has_bell,
       configuration.version, configuration.keys, configuration."values"
FROM ({queues}) AS queue LEFT JOIN ({configuration}) AS configuration ON queue.number = 1
ORDER BY queue.number;
