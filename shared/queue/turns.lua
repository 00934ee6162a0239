-- Whose turn it is in a lane: start-time fair queueing over tenants (Goyal, Vin, Cheng 1996). A tenant's tag is the virtual
-- time at which its next job starts; it grows by tokens / weight as its jobs are taken, and a tenant that comes (back) starts
-- at the lane's clock, or where it had left off. What stands first for a tenant whose head is urgent is its tag less LEAD.
local LEAD = 20000
local URGENT = 4

-- The time in ms: Redis's own, but for tests that say what time it is.
local function now_ms()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

local function wake(p)
  redis.call('RPUSH', p .. 'wake', '1')
  redis.call('LTRIM', p .. 'wake', -16, -1)
end

local function parsed(held)
  if not held then return nil end
  local input, output, weight, order, deadline, tenant = held:match('^(%d+):(%d+):([^:]+):(-?%d+):(%d+):(.*)$')
  return {input = tonumber(input), output = tonumber(output), weight = tonumber(weight), order = tonumber(order),
    deadline = tonumber(deadline) > 1e12 and tonumber(deadline) or nil, tenant = tenant}
end

local function facts_of(p, lane, id) return parsed(redis.call('HGET', p .. 'facts:' .. lane, id)) end

-- Moves the lane's clock to the tag of a job that is taken; it never goes back.
local function advance(p, lane, tag)
  local clock = math.max(tag, tonumber(redis.call('GET', p .. 'clock:' .. lane) or 0))
  redis.call('SET', p .. 'clock:' .. lane, string.format('%.3f', clock))
end

-- Sets where a tenant stands in the lane, by its tag and by what its first job is.
local function stand(p, lane, tenant, tag)
  local head = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. tenant, 0, 0)[1]
  if not head then
    redis.call('ZREM', p .. 'turns:' .. lane, tenant)
    redis.call('HDEL', p .. 'tags:' .. lane, tenant)
    if tag > tonumber(redis.call('GET', p .. 'clock:' .. lane) or 0) then
      redis.call('ZADD', p .. 'past:' .. lane, tag, tenant)
      redis.call('PEXPIRE', p .. 'past:' .. lane, 600000)
    end
    return
  end
  local facts = facts_of(p, lane, head)
  local lead = facts and facts.weight >= URGENT and LEAD or 0
  redis.call('HSET', p .. 'tags:' .. lane, tenant, tag)
  redis.call('ZADD', p .. 'turns:' .. lane, tag - lead, tenant)
end

-- Takes a job out of those who wait; returns whether it was there.
local function leave(p, lane, job, id)
  if job.deadline then redis.call('ZREM', p .. 'deadlines:' .. lane .. ':' .. job.tenant, id) end
  return redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. job.tenant, id)
end

local function wait_turn(p, lane, id, job)
  local tenant, weight = job.tenant, job.weight
  redis.call('ZADD', p .. 'waiting:' .. lane .. ':' .. tenant, job.order, id)
  if job.deadline then redis.call('ZADD', p .. 'deadlines:' .. lane .. ':' .. tenant, job.deadline, id) end
  local tag = redis.call('HGET', p .. 'tags:' .. lane, tenant)
  if tag then
    if weight >= URGENT then stand(p, lane, tenant, tonumber(tag)) end
    return
  end
  redis.call('PERSIST', p .. 'clock:' .. lane)
  local past = redis.call('ZSCORE', p .. 'past:' .. lane, tenant)
  if past then redis.call('ZREM', p .. 'past:' .. lane, tenant) end
  stand(p, lane, tenant, math.max(tonumber(redis.call('GET', p .. 'clock:' .. lane) or 0), tonumber(past or 0)))
end

-- A tenant that has as many calls under way as it may is on hold: one entry taken out of the turn, however much waits behind
-- it. It comes back when one of its calls ends, or for a look now and then, since they may end in other lanes.
local HOLD_MS = 500

local function flight_of(tenant) return 'sluice:flight:' .. tenant end

local function hold(p, lane, tenant, now)
  redis.call('ZREM', p .. 'turns:' .. lane, tenant)
  redis.call('ZADD', p .. 'hold:' .. lane, now + HOLD_MS, tenant)
end

local function unhold(p, lane, tenant)
  if redis.call('ZREM', p .. 'hold:' .. lane, tenant) == 1 then
    stand(p, lane, tenant, tonumber(redis.call('HGET', p .. 'tags:' .. lane, tenant) or 0))
    return true
  end
  return false
end

-- How many jobs a lane took in each second of the last twenty, and from these its jobs/s since the first of them: 0 where that
-- cannot be said yet.
local PACE_SECONDS = 20

local function count_taken(p, lane, number, now)
  local name, second = p .. 'pace:' .. lane, math.floor(now / 1000)
  redis.call('HINCRBY', name, second, number)
  if redis.call('HLEN', name) > 2 * PACE_SECONDS then
    for _, one in ipairs(redis.call('HKEYS', name)) do
      if second - one > PACE_SECONDS then redis.call('HDEL', name, one) end
    end
  end
  redis.call('PEXPIRE', name, PACE_SECONDS * 1000)
end

local function pace_of(p, lane, now)
  local counts, taken, first = redis.call('HGETALL', p .. 'pace:' .. lane), 0, now
  for i = 1, #counts, 2 do
    if now / 1000 - counts[i] <= PACE_SECONDS then
      taken, first = taken + counts[i + 1], math.min(first, counts[i] * 1000)
    end
  end
  return now - first >= 2000 and taken * 1000 / (now - first) or 0
end

-- What a job weighs: what it will use, as far as that is known, by its priority.
local function charge(job)
  local usage, allowed = job.usage, job.output > 0 and job.output or math.huge
  local output = usage and usage.mean or allowed < math.huge and allowed or 0
  return (job.input * (usage and usage.ratio or 1) + math.min(output, allowed) + 1) / job.weight
end
