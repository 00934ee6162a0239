-- Puts jobs in their lanes. KEYS: the pool's prefix. ARGV: JSON of {lane, id, run_at (ms), order (ms), flow, input tokens,
-- output tokens, weight, deadline (ms, or 0)}s. A job that is in motion or waiting already stays as it is, so this may be
-- repeated at will; one that is due earlier than it was once said is brought forward.
local LONGEST_LEASE_MS = 3600000
local p = KEYS[1]
local now = now_ms()
local fresh = false
for _, new in ipairs(cjson.decode(ARGV[2])) do
  local lane, id, run_at, order, flow = new[1], new[2], new[3], new[4], new[5]
  local queue, facts = p .. 'queue:' .. lane, p .. 'facts:' .. lane
  -- What a claim must know of the job: tokens in and out, weight, order, deadline, flow.
  local known = facts_of(p, lane, id)
  local due = redis.call('ZSCORE', queue, id)
  if due and tonumber(due) > math.max(run_at, now + LONGEST_LEASE_MS) then
    redis.call('ZADD', queue, run_at, id)
    redis.call('ZADD', p .. 'lanes', 'LT', run_at, lane)
  end
  if not known or not (due or redis.call('ZSCORE', p .. 'waiting:' .. lane .. ':' .. known.flow, id)) then
    -- A second's slack: a clock that is a little ahead must not send a job round the timer.
    local later = run_at > now + 1000
    local held = string.format('%d:%d:%g:%d:%.0f:%s', new[6], new[7], new[8], order, new[9], flow)
    redis.call('HSET', facts, id, held)
    if due then
      -- It is in motion, and only what is known of it was lost.
    elseif later then
      redis.call('ZADD', queue, run_at, id)
      redis.call('ZADD', p .. 'lanes', 'LT', run_at, lane)
    else
      wait_turn(p, lane, id, parsed(held))
      redis.call('ZADD', p .. 'lanes', 'LT', now, lane)
      fresh = true
    end
  end
end
if fresh then wake(p) end
