-- Where the ledger's entries since an hour differ from what they must equal: attempts, hourly usage, budgets' windows, and what is
-- held of these. One statement, so that what commits meanwhile is in all of it or in nothing.
WITH entries AS MATERIALIZED (
    SELECT * FROM ledger WHERE at >= :since
), spent AS (
    SELECT tenant_id, job_id, attempt, sum(nanos) AS nanos FROM entries WHERE kind IN ('settle', 'adjust') GROUP BY 1, 2, 3
), hours AS (
    SELECT tenant_id, date_trunc('hour', at, 'UTC') AS hour, sum(nanos) AS nanos FROM entries
    WHERE kind IN ('settle', 'adjust') GROUP BY 1, 2
), windows AS (
    SELECT w.id, w.tenant_id, w.budget_id, w.spent_nanos - w.opening_nanos AS spent, w.reserved_nanos AS reserved
    FROM budget_windows w JOIN budgets b ON b.id = w.budget_id
    WHERE b.batch_id IS NULL AND w.starts_at > now() - interval '32 days' AND (w.ends_at IS NULL OR w.ends_at > :since)
), booked AS (
    SELECT window_id, sum(nanos) FILTER (WHERE kind IN ('settle', 'adjust')) AS spent
    FROM ledger CROSS JOIN unnest(ledger.windows) AS window_id
    WHERE ledger.tenant_id IN (SELECT tenant_id FROM windows) AND ledger.windows <> '{}'
        AND ledger.at >= now() - interval '32 days' GROUP BY 1
), held AS (
    SELECT window_id, sum(nanos) AS nanos FROM reservations CROSS JOIN unnest(windows) AS window_id GROUP BY 1
)
SELECT 'attempts' AS what, s.tenant_id, s.job_id::text || '/' || s.attempt AS subject, a.cost_nanos AS theirs, s.nanos AS ours
FROM spent s LEFT JOIN attempts a ON a.job_id = s.job_id AND a.number = s.attempt
WHERE a.job_id IS NOT NULL AND a.cost_nanos IS DISTINCT FROM (
    SELECT sum(nanos) FROM ledger l WHERE l.job_id = s.job_id AND l.attempt = s.attempt AND l.kind IN ('settle', 'adjust'))
UNION ALL
SELECT 'attempts', a.tenant_id, a.job_id::text || '/' || a.number, a.cost_nanos, NULL
FROM attempts a WHERE a.job_id >= CAST(:first AS uuid) AND a.ended_at >= :since AND a.input_tokens IS NOT NULL
    AND NOT EXISTS (SELECT FROM ledger l WHERE l.job_id = a.job_id AND l.attempt = a.number AND l.number > 0)
UNION ALL
SELECT 'usage', COALESCE(h.tenant_id, u.tenant_id), COALESCE(h.hour, u.hour)::text, u.nanos, h.nanos
FROM (SELECT * FROM hours WHERE hour >= :since) h FULL JOIN (
    SELECT tenant_id, hour, sum(cost_nanos) AS nanos FROM usage_hours WHERE label = '' AND hour >= :since GROUP BY 1, 2
) u ON u.tenant_id = h.tenant_id AND u.hour = h.hour
WHERE COALESCE(h.nanos, 0) <> COALESCE(u.nanos, 0)
UNION ALL
SELECT 'spent', w.tenant_id, w.budget_id::text, w.spent, b.spent FROM windows w LEFT JOIN booked b ON b.window_id = w.id
WHERE w.spent <> COALESCE(b.spent, 0)
UNION ALL
SELECT 'reserved', w.tenant_id, w.budget_id::text, w.reserved, h.nanos FROM windows w LEFT JOIN held h ON h.window_id = w.id
WHERE w.reserved <> COALESCE(h.nanos, 0)
LIMIT 1000
