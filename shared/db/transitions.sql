-- Applies transitions: every change of a job's status after its claim, with all that commits with it.
--   f  what is to change, and the attempt that ended          b  the batches, locked in order of id
--   j  the jobs whose fence matched                           r  their results, or what is to be repaired
--   v  what was held of budgets for these attempts            a  the attempts
--   l  the ledger's entries                                   k, w  the budgets' windows, locked in order, and settled
--   t  alerts for the shares of a budget that were crossed    u  hourly usage
--   c  the batches' counters                                  p  the tenants' webhook endpoints: mostly none
--   d, e, g  pending deliveries of jobs, batches, alerts      n  the jobs of a batch that waited for those that ended
-- A retry of a job that was asked to stop ends as `cancelled`. Batches and windows are locked in one order, so that two groups
-- cannot wait for each other, and a batch's sequence numbers are committed in their order. Who waits is counted down by no
-- condition on how that stood before: another may have restarted it while we waited for the batch. What is joined with FULL has
-- a row in `f` each: it makes the planner, who expects few rows of these, hash them.
WITH f AS (
    SELECT *, row_number() OVER (PARTITION BY batch_id ORDER BY id) AS rank FROM unnest(
        CAST(:id AS uuid[]), CAST(:tenant_id AS text[]), CAST(:batch_id AS uuid[]), CAST(:attempt AS integer[]),
        CAST(:was AS text[]), CAST(:status AS text[]), CAST(:at AS timestamptz[]), CAST(:run_at AS timestamptz[]),
        CAST(:error AS text[]), CAST(:result AS bytea[]), CAST(:to_provider AS text[]), CAST(:to_model AS text[]),
        CAST(:to_route AS text[]), CAST(:downgraded AS boolean[]), CAST(:held_by AS uuid[]), CAST(:delivery_id AS uuid[]),
        CAST(:a_status AS text[]), CAST(:a_charged AS boolean[]), CAST(:a_started_at AS timestamptz[]),
        CAST(:a_ended_at AS timestamptz[]), CAST(:a_provider AS text[]), CAST(:a_deployment AS text[]),
        CAST(:a_key_name AS text[]), CAST(:a_error AS text[]), CAST(:a_upstream_request_id AS text[]),
        CAST(:a_input_tokens AS bigint[]), CAST(:a_cached_tokens AS bigint[]),
        CAST(:a_cache_write_tokens AS bigint[]), CAST(:a_output_tokens AS bigint[]),
        CAST(:a_reasoning_tokens AS bigint[]), CAST(:a_estimated AS boolean[]), CAST(:a_cost_nanos AS bigint[]),
        CAST(:a_price_version AS text[]), CAST(:incomplete AS boolean[])
    ) AS f(id, tenant_id, batch_id, attempt, was, status, at, run_at, error, result, to_provider,
           to_model, to_route, downgraded, held_by, delivery_id,
           a_status, charged, started_at, ended_at, provider, deployment, key_name, a_error, upstream_request_id,
           input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, cost_nanos,
           price_version, incomplete)
), b AS MATERIALIZED (
    SELECT id, sequence, expires_at FROM batches WHERE id IN (SELECT batch_id FROM f) ORDER BY id FOR UPDATE
), j AS (
    UPDATE jobs SET
        status = CASE WHEN f.status = 'queued' AND jobs.cancel_asked_at IS NOT NULL THEN 'cancelled' ELSE f.status END,
        charged = jobs.charged + COALESCE(f.charged, false)::integer,
        run_at = COALESCE(f.run_at, jobs.run_at),
        provider = COALESCE(f.to_provider, jobs.provider),
        upstream_model = COALESCE(f.to_model, jobs.upstream_model),
        route = CASE WHEN f.to_provider IS NULL THEN jobs.route ELSE NULLIF(f.to_route::jsonb, 'null'::jsonb) END,
        downgraded = jobs.downgraded OR f.downgraded, held_by = f.held_by,
        repairs = jobs.repairs + (f.status = 'queued' AND f.result IS NOT NULL AND jobs.cancel_asked_at IS NULL)::integer,
        put_off = jobs.put_off + (f.was = 'in_progress' AND f.a_status IS NULL)::integer,
        started_at = CASE WHEN f.was <> 'in_progress' OR f.a_status IS NOT NULL OR jobs.put_off + 1 < jobs.attempt
                          THEN jobs.started_at END,
        lease_id = NULL,
        finished_at = CASE WHEN f.status <> 'queued' OR jobs.cancel_asked_at IS NOT NULL THEN f.at END,
        error = f.error::jsonb,
        deployment = COALESCE(f.deployment, jobs.deployment),
        input_tokens = COALESCE(f.input_tokens, jobs.input_tokens),
        cached_tokens = COALESCE(f.cached_tokens, jobs.cached_tokens),
        cache_write_tokens = COALESCE(f.cache_write_tokens, jobs.cache_write_tokens),
        output_tokens = COALESCE(f.output_tokens, jobs.output_tokens),
        reasoning_tokens = COALESCE(f.reasoning_tokens, jobs.reasoning_tokens),
        cost_nanos = CASE WHEN (f.input_tokens IS NOT NULL AND f.cost_nanos IS NULL)
                            OR (jobs.input_tokens IS NOT NULL AND jobs.cost_nanos IS NULL) THEN NULL
                          ELSE COALESCE(jobs.cost_nanos, 0) + COALESCE(f.cost_nanos, 0) END,
        batch_sequence = CASE WHEN f.status <> 'queued' OR jobs.cancel_asked_at IS NOT NULL
                              THEN b.sequence + f.rank END
    FROM f LEFT JOIN b ON b.id = f.batch_id
    WHERE jobs.id = f.id AND jobs.tenant_id = f.tenant_id AND jobs.attempt = f.attempt AND jobs.status = f.was
    RETURNING jobs.id, jobs.attempt, jobs.tenant_id, jobs.batch_id, jobs.status, jobs.webhook, jobs.url,
        jobs.deadline, b.expires_at AS batch_expires_at, f.was, f.rank, f.result, f.delivery_id, f.at, f.incomplete,
        f.input_tokens, f.cached_tokens, f.cache_write_tokens, f.output_tokens, f.reasoning_tokens, f.cost_nanos
), r AS (
    INSERT INTO results (job_id, body) SELECT id, result FROM j WHERE result IS NOT NULL AND status IN ('completed', 'queued')
    ON CONFLICT (job_id) DO UPDATE SET body = excluded.body
), v AS (
    DELETE FROM reservations USING f
    WHERE reservations.job_id = f.id AND reservations.attempt = f.attempt AND f.was = 'in_progress'
    RETURNING reservations.job_id, reservations.attempt, reservations.nanos, reservations.usual_nanos,
        reservations.windows
), a AS (
    INSERT INTO attempts (job_id, number, tenant_id, provider, deployment, key_name, status, charged, started_at,
        ended_at, error, upstream_request_id, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, estimated, cost_nanos)
    SELECT id, f.attempt, tenant_id, provider, deployment, key_name, a_status, charged, started_at,
        ended_at, a_error::jsonb, upstream_request_id, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, estimated OR v.usual_nanos IS NOT NULL AND a_status = 'lost',
        CASE WHEN a_status = 'lost' THEN COALESCE(cost_nanos, v.usual_nanos) ELSE cost_nanos END
    FROM f LEFT JOIN v ON v.job_id = f.id AND v.attempt = f.attempt WHERE a_status IS NOT NULL
    ON CONFLICT (job_id, number) DO UPDATE SET deployment = excluded.deployment, key_name = excluded.key_name,
        upstream_request_id = excluded.upstream_request_id, input_tokens = excluded.input_tokens,
        cached_tokens = excluded.cached_tokens, cache_write_tokens = excluded.cache_write_tokens,
        output_tokens = excluded.output_tokens,
        reasoning_tokens = excluded.reasoning_tokens, estimated = excluded.estimated, cost_nanos = excluded.cost_nanos
    WHERE attempts.status IN ('lost', 'released') AND excluded.status <> 'lost'
    RETURNING job_id, number, input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated,
        cost_nanos
), l AS (
    INSERT INTO ledger (job_id, attempt, number, tenant_id, kind, nanos, reserved_nanos, windows, input_tokens,
        cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, estimated, price_version, at)
    SELECT f.id, f.attempt, e.count + 1, f.tenant_id,
        CASE WHEN NOT s.billable THEN 'release' WHEN e.count = 0 THEN 'settle' ELSE 'adjust' END,
        CASE WHEN NOT s.billable THEN 0 ELSE a.cost_nanos - e.nanos END,
        COALESCE(v.nanos, 0), COALESCE(v.windows, e.windows, '{}'), a.input_tokens - e.input, a.cached_tokens - e.cached,
        a.cache_write_tokens - e.cache_write, a.output_tokens - e.output, a.reasoning_tokens - e.reasoning,
        COALESCE(a.estimated, false), f.price_version, f.at
    FROM f FULL JOIN a ON a.job_id = f.id AND a.number = f.attempt
        LEFT JOIN v ON v.job_id = f.id AND v.attempt = f.attempt
        CROSS JOIN LATERAL (
            SELECT count(*) AS count, COALESCE(sum(nanos), 0) AS nanos, COALESCE(sum(input_tokens), 0) AS input,
                COALESCE(sum(cached_tokens), 0) AS cached, COALESCE(sum(cache_write_tokens), 0) AS cache_write,
                COALESCE(sum(output_tokens), 0) AS output, COALESCE(sum(reasoning_tokens), 0) AS reasoning,
                min(windows) AS windows
            FROM ledger WHERE ledger.job_id = a.job_id AND ledger.attempt = a.number AND ledger.number > 0
        ) AS e
        CROSS JOIN LATERAL (SELECT a.input_tokens IS NOT NULL OR a.cost_nanos IS NOT NULL AS billable) AS s
    WHERE COALESCE(f.was, '') = 'in_progress' AND (v.job_id IS NOT NULL OR s.billable AND (
        e.count = 0 OR a.cost_nanos <> e.nanos OR a.input_tokens <> e.input OR a.output_tokens <> e.output))
    RETURNING job_id, attempt, number, nanos, reserved_nanos, windows, input_tokens, cached_tokens, cache_write_tokens,
        output_tokens, reasoning_tokens, kind
), k AS MATERIALIZED (
    SELECT id FROM budget_windows WHERE id IN (SELECT unnest(windows) FROM l) ORDER BY budget_id, starts_at FOR UPDATE
), w AS (
    UPDATE budget_windows SET reserved_nanos = reserved_nanos - n.freed, spent_nanos = spent_nanos + n.nanos
    FROM (
        SELECT unnest(windows) AS id, sum(reserved_nanos) AS freed, COALESCE(sum(nanos), 0) AS nanos FROM l GROUP BY 1
    ) AS n JOIN k ON k.id = n.id
    WHERE budget_windows.id = n.id
    RETURNING budget_windows.id, budget_id, spent_nanos
), t AS (
    INSERT INTO alerts (id, kind, subject, tenant_id, message, fields)
    SELECT new_id(), 'budget.threshold_crossed', w.budget_id || '/' || w.id || '/' || share, b.tenant_id,
        'The budget ' || named || ' has spent ' || share || ' % of its ' || trim_scale(b.limit_nanos / 1e9) || ' USD ('
            || b.period || ').',
        jsonb_build_object('budget', named, 'percent', share,
            'limit_usd', trim_scale(b.limit_nanos / 1e9)::text, 'spent_usd', trim_scale(w.spent_nanos / 1e9)::text)
    FROM w JOIN budgets b ON b.id = w.budget_id AND b.limit_nanos > 0 CROSS JOIN unnest(b.thresholds) AS share
        CROSS JOIN LATERAL (SELECT 'budget_' || replace(b.id::text, '-', '') AS named) AS n
    WHERE w.spent_nanos::numeric * 100 >= b.limit_nanos::numeric * share
    ORDER BY 3 ON CONFLICT (kind, subject) DO NOTHING
    RETURNING id, kind, tenant_id, message, fields
), u AS (
    INSERT INTO usage_hours AS u (tenant_id, label, hour, model, provider, team_id, key_id, bucket, jobs, errors, attempts,
        input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, unpriced)
    SELECT x.tenant_id, label, date_trunc('hour', f.at, 'UTC'), x.model, COALESCE(f.provider, x.provider),
        COALESCE(x.team_id, '00000000-0000-0000-0000-000000000000'),
        COALESCE(x.key_id, '00000000-0000-0000-0000-000000000000'),
        CASE WHEN ended THEN LEAST(90, floor(ln(GREATEST(1,
            extract(epoch FROM f.at - GREATEST(x.run_at, x.created_at)) * 1000)) / ln(1.25))) ELSE -1 END,
        count(*) FILTER (WHERE ended), count(*) FILTER (WHERE ended AND j.status IN ('failed', 'expired')),
        count(*) FILTER (WHERE l.kind = 'settle'),
        COALESCE(sum(l.input_tokens), 0), COALESCE(sum(l.cached_tokens), 0), COALESCE(sum(l.cache_write_tokens), 0),
        COALESCE(sum(l.output_tokens), 0), COALESCE(sum(l.reasoning_tokens), 0), COALESCE(sum(l.nanos), 0),
        count(*) FILTER (WHERE l.kind <> 'release' AND l.nanos IS NULL)
    FROM f FULL JOIN j ON j.id = f.id AND j.attempt = f.attempt AND j.was = f.was
        FULL JOIN (SELECT l.*, 'in_progress' AS was FROM l) AS l
            ON l.job_id = f.id AND l.attempt = f.attempt AND l.was = f.was
        CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.id = f.id AND jobs.tenant_id = f.tenant_id) AS x
        CROSS JOIN LATERAL (SELECT COALESCE(j.status <> 'queued', false) AS ended) AS s
        CROSS JOIN LATERAL (
            SELECT '' AS label UNION ALL SELECT 'user:' || x.end_user WHERE x.end_user IS NOT NULL
            UNION ALL SELECT 'tag:' || tag FROM unnest(x.tags) AS tag
        ) AS labels
    WHERE ended OR l.kind <> 'release'
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (tenant_id, label, hour, model, provider, team_id, key_id, bucket) DO UPDATE SET
        jobs = u.jobs + excluded.jobs, errors = u.errors + excluded.errors, attempts = u.attempts + excluded.attempts,
        input_tokens = u.input_tokens + excluded.input_tokens, cached_tokens = u.cached_tokens + excluded.cached_tokens,
        cache_write_tokens = u.cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
        cost_nanos = u.cost_nanos + excluded.cost_nanos, unpriced = u.unpriced + excluded.unpriced
), p AS MATERIALIZED (
    SELECT id, tenant_id, event_types FROM webhook_endpoints
    WHERE tenant_id IN (SELECT tenant_id FROM f) AND enabled AND deleted_at IS NULL
), d AS (
    INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, job_id, url, include_result, created_at)
    SELECT delivery_id, delivery_id, tenant_id, NULL, lane_of(tenant_id, webhook->>'url'),
        'job.' || status, id, webhook->>'url', COALESCE((webhook->>'include_result')::boolean, false), at
    FROM j WHERE webhook IS NOT NULL AND status <> 'queued'
    UNION ALL
    SELECT new_id(), o.event_id, o.tenant_id, p.id, replace(p.id::text, '-', ''), o.type, o.id, NULL, false, o.at
    FROM (
        SELECT id, tenant_id, at, delivery_id AS event_id, 'job.' || status AS type FROM j WHERE status <> 'queued'
        UNION ALL
        SELECT id, tenant_id, at, new_id(), 'response.' || CASE WHEN status = 'expired' THEN 'failed'
            WHEN status = 'completed' AND incomplete THEN 'incomplete' ELSE status END
        FROM j WHERE status <> 'queued' AND url = '/v1/responses' AND EXISTS (SELECT FROM p)
    ) AS o JOIN p ON p.tenant_id = o.tenant_id AND o.type = ANY(p.event_types)
    RETURNING job_id
), c AS (
    UPDATE batches SET
        completed = completed + n.n_completed, failed = failed + n.n_failed,
        cancelled = cancelled + n.n_cancelled, expired = expired + n.n_expired,
        sequence = sequence + n.ranks,
        input_tokens = input_tokens + n.n_input, cached_tokens = cached_tokens + n.n_cached,
        cache_write_tokens = cache_write_tokens + n.n_cache_write,
        output_tokens = output_tokens + n.n_output, reasoning_tokens = reasoning_tokens + n.n_reasoning,
        cost_nanos = cost_nanos + n.n_cost, unpriced = unpriced + n.n_unpriced,
        status = CASE WHEN completed + failed + cancelled + expired + n.n_ended < total THEN status
                      WHEN status = 'cancelling' THEN 'cancelled'
                      WHEN expired + n.n_expired > 0 AND (n.closed OR expires_at <= n.at) THEN 'expired'
                      ELSE 'completed' END,
        finished_at = CASE WHEN completed + failed + cancelled + expired + n.n_ended = total THEN n.at END
    FROM (
        SELECT batch_id, max(rank) AS ranks, max(at) AS at,
            count(*) FILTER (WHERE status <> 'queued') AS n_ended,
            count(*) FILTER (WHERE status = 'completed') AS n_completed,
            count(*) FILTER (WHERE status = 'failed') AS n_failed,
            count(*) FILTER (WHERE status = 'cancelled') AS n_cancelled,
            count(*) FILTER (WHERE status = 'expired') AS n_expired,
            bool_or(status = 'expired' AND deadline = batch_expires_at) AS closed,
            COALESCE(sum(input_tokens), 0) AS n_input, COALESCE(sum(cached_tokens), 0) AS n_cached,
            COALESCE(sum(cache_write_tokens), 0) AS n_cache_write,
            COALESCE(sum(output_tokens), 0) AS n_output, COALESCE(sum(reasoning_tokens), 0) AS n_reasoning,
            COALESCE(sum(cost_nanos), 0) AS n_cost,
            count(*) FILTER (WHERE input_tokens IS NOT NULL AND cost_nanos IS NULL) AS n_unpriced
        FROM j WHERE batch_id IS NOT NULL GROUP BY batch_id
    ) AS n WHERE batches.id = n.batch_id
    RETURNING id, tenant_id, status, finished_at, webhook
), e AS (
    INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, batch_id, url, created_at)
    SELECT new_id(), o.event_id, o.tenant_id, to_.endpoint_id, to_.lane, o.type, o.id, to_.url, o.finished_at
    FROM (
        SELECT c.*, 'batch.' || status AS type, new_id() AS event_id FROM c WHERE finished_at IS NOT NULL
    ) AS o CROSS JOIN LATERAL (
        SELECT NULL::uuid AS endpoint_id, o.webhook->>'url' AS url,
            lane_of(o.tenant_id, o.webhook->>'url') AS lane WHERE o.webhook IS NOT NULL
        UNION ALL
        SELECT p.id, NULL, replace(p.id::text, '-', '') FROM p
        WHERE p.tenant_id = o.tenant_id AND o.type = ANY(p.event_types)
    ) AS to_
    RETURNING batch_id
), g AS (
    INSERT INTO deliveries (id, event_id, tenant_id, endpoint_id, lane, type, body)
    SELECT new_id(), t.id, t.tenant_id, p.id, replace(p.id::text, '-', ''), t.kind, t.fields || jsonb_build_object(
        'id', 'alert_' || replace(t.id::text, '-', ''), 'object', 'alert', 'message', t.message)
    FROM t JOIN p ON p.tenant_id = t.tenant_id AND t.kind = ANY(p.event_types)
    RETURNING id
), n AS (
    UPDATE jobs SET waits_for = CASE WHEN jobs.waits_for > 0 THEN jobs.waits_for - n.ended ELSE jobs.waits_for END
    FROM (
        SELECT dependencies.job_id, count(*) AS ended FROM j JOIN dependencies ON dependencies.needs = j.id
        WHERE j.batch_id IS NOT NULL AND j.status <> 'queued' GROUP BY 1
    ) AS n
    WHERE jobs.id = n.job_id AND jobs.id NOT IN (SELECT id FROM j)
    RETURNING jobs.waits_for = 0 AND jobs.status = 'queued' AS ready
)
SELECT id, attempt, was, status,
    (id IN (SELECT job_id FROM d) OR batch_id IN (SELECT batch_id FROM e)) AND status <> 'queued'
        OR EXISTS (SELECT FROM g) AS has_delivery,
    EXISTS (SELECT FROM n WHERE ready) AS lets_go
FROM j
