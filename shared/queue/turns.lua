-- Whose turn it is: start-time fair queueing (Goyal, Vin, Cheng 1996), once over the tenants of a lane and, with the same
-- functions, once over the flows of a tenant in it. A flow is a tenant's jobs of one key: it is called `T/KEY`, or `T` where no
-- key submitted them. A scope is `L` for the tenants of lane L, `L:T` for the flows of tenant T in it. A tag is the virtual
-- time at which the next job of a tenant or flow starts; it grows by tokens / weight as jobs are taken, and who comes (back)
-- starts at the scope's clock, or where it had left off: a tenant gains nothing by having many keys. What stands first for
-- whoever has an urgent head is its tag less LEAD.
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
  local input, output, weight, order, deadline, flow, tenant = held:match('^(%d+):(%d+):([^:]+):(-?%d+):(%d+):(([^/]*).*)$')
  return {input = tonumber(input), output = tonumber(output), weight = tonumber(weight), order = tonumber(order),
    deadline = tonumber(deadline) > 1e12 and tonumber(deadline) or nil, flow = flow, tenant = tenant}
end

local function facts_of(p, lane, id) return parsed(redis.call('HGET', p .. 'facts:' .. lane, id)) end

local function tenant_of(flow) return flow:match('^[^/]*') end

local function tag_of(p, scope, name) return tonumber(redis.call('HGET', p .. 'tags:' .. scope, name) or 0) end

local function clock_of(p, scope) return tonumber(redis.call('GET', p .. 'clock:' .. scope) or 0) end

-- Moves a scope's clock to the tag of a job that is taken; it never goes back.
local function advance(p, scope, tag)
  redis.call('SET', p .. 'clock:' .. scope, string.format('%.3f', math.max(tag, clock_of(p, scope))))
end

-- Whoever may have no more calls under way, or no money at the moment, is on hold: one entry taken out of the turn, however much
-- waits behind it. A tenant is held as `T`, a flow as `T/KEY` or, without a key, `T/`. It comes back when one of its calls ends,
-- or for a look when its time is over: within HOLD_MS where it is only at its cap, since its calls may end in other lanes.
local HOLD_MS = 500

local function held_as(flow) return flow:find('/', 1, true) and flow or flow .. '/' end

local any_held = {}
local function held_till(p, lane, name)
  if any_held[lane] == nil then any_held[lane] = redis.call('EXISTS', p .. 'hold:' .. lane) == 1 end
  return any_held[lane] and tonumber(redis.call('ZSCORE', p .. 'hold:' .. lane, name) or nil)
end

-- Returns the tag with which a tenant or flow starts to wait.
local function start_of(p, scope, name)
  local past = redis.call('ZSCORE', p .. 'past:' .. scope, name)
  if past then redis.call('ZREM', p .. 'past:' .. scope, name) end
  redis.call('PERSIST', p .. 'clock:' .. scope)
  return math.max(clock_of(p, scope), tonumber(past or 0))
end

-- Sets where a tenant or flow that waits stands in its scope.
local function put(p, scope, name, tag, lead, held)
  redis.call('HSET', p .. 'tags:' .. scope, name, tag)
  if not held then redis.call('ZADD', p .. 'turns:' .. scope, tag - lead, name) end
end

local function take_out(p, scope, name, tag)
  redis.call('ZREM', p .. 'turns:' .. scope, name)
  redis.call('HDEL', p .. 'tags:' .. scope, name)
  if tag > 0 then
    local past, clock = p .. 'past:' .. scope, clock_of(p, scope)
    redis.call('ZREMRANGEBYSCORE', past, '-inf', clock)
    if tag > clock then
      redis.call('ZADD', past, tag, name)
      redis.call('PEXPIRE', past, 600000)
    end
  end
end

-- Sets where a tenant stands in the lane, by its tag and by the first of its flows.
local function stand_tenant(p, lane, tenant, tag)
  local scope = lane .. ':' .. tenant
  local first = redis.call('ZRANGE', p .. 'turns:' .. scope, 0, 0, 'WITHSCORES')
  if not first[1] and redis.call('EXISTS', p .. 'tags:' .. scope) == 0 then
    if redis.call('EXISTS', p .. 'waiting:' .. lane .. ':' .. tenant) == 0 then
      take_out(p, lane, tenant, tag)
      redis.call('PEXPIRE', p .. 'clock:' .. scope, 600000)
      return
    end
    -- An earlier layout knew no flows: what it left waits as the flow without a key.
    put(p, scope, tenant, 0, 0)
    first = {tenant, 0}
  end
  if not first[1] then
    -- All its flows are on hold.
    redis.call('ZREM', p .. 'turns:' .. lane, tenant)
    redis.call('HSET', p .. 'tags:' .. lane, tenant, tag)
    return
  end
  local lead = tonumber(first[2]) < tag_of(p, scope, first[1]) and LEAD or 0
  put(p, lane, tenant, tag, lead, held_till(p, lane, tenant))
end

-- Sets where a flow stands, by its tag (`own`) and by what its first job is, and where its tenant does. `alone` is where it
-- stood, if it is the only one of its tenant that is in the turn.
local function stand(p, lane, flow, tag, own, alone)
  local tenant = tenant_of(flow)
  local scope = lane .. ':' .. tenant
  local head = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. flow, 0, 0)[1]
  if not head then
    take_out(p, scope, flow, own)
    return stand_tenant(p, lane, tenant, tag)
  end
  local facts = facts_of(p, lane, head)
  local lead = facts and facts.weight >= URGENT and LEAD or 0
  if own - lead ~= alone then put(p, scope, flow, own, lead, held_till(p, lane, held_as(flow))) end
  if alone then return put(p, lane, tenant, tag, lead) end
  stand_tenant(p, lane, tenant, tag)
end

local function stand_again(p, lane, flow)
  local tenant = tenant_of(flow)
  stand(p, lane, flow, tag_of(p, lane, tenant), tag_of(p, lane .. ':' .. tenant, flow))
end

-- Takes a job out of those who wait; returns whether it was there.
local function leave(p, lane, job, id)
  if job.deadline then redis.call('ZREM', p .. 'deadlines:' .. lane .. ':' .. job.flow, id) end
  return redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. job.flow, id)
end

local function wait_turn(p, lane, id, job)
  local flow, tenant, scope = job.flow, job.tenant, lane .. ':' .. job.tenant
  redis.call('ZADD', p .. 'waiting:' .. lane .. ':' .. flow, job.order, id)
  if job.deadline then redis.call('ZADD', p .. 'deadlines:' .. lane .. ':' .. flow, job.deadline, id) end
  local own = redis.call('HGET', p .. 'tags:' .. scope, flow)
  if own and job.weight < URGENT then return end
  local tag = redis.call('HGET', p .. 'tags:' .. lane, tenant)
  -- One that an earlier layout let wait stands as a flow before another comes.
  if tag and not own and redis.call('EXISTS', p .. 'tags:' .. scope) == 0 then stand_tenant(p, lane, tenant, tonumber(tag)) end
  stand(p, lane, flow, tonumber(tag or start_of(p, lane, tenant)), tonumber(own or start_of(p, scope, flow)))
end

local function flight_of(name) return 'sluice:flight:' .. name end

-- Puts a tenant or a flow (see `held_as`) on hold.
local function hold(p, lane, name, till)
  local tenant = tenant_of(name)
  redis.call('ZADD', p .. 'hold:' .. lane, 'GT', till, name)
  any_held[lane] = true
  if name == tenant then
    redis.call('ZREM', p .. 'turns:' .. lane, tenant)
  elseif redis.call('ZREM', p .. 'turns:' .. lane .. ':' .. tenant, name:match('^(.-)/?$')) == 1 then
    stand_tenant(p, lane, tenant, tag_of(p, lane, tenant))
  end
end

-- Has a tenant or a flow come back from its hold, with no more than LEAD saved up.
local function unhold(p, lane, name)
  if redis.call('ZREM', p .. 'hold:' .. lane, name) == 0 then return end
  local tenant, flow = tenant_of(name), name:match('^(.-)/?$')
  local scope = lane .. ':' .. tenant
  local tag, own = redis.call('HGET', p .. 'tags:' .. lane, tenant), redis.call('HGET', p .. 'tags:' .. scope, flow)
  if not tag then return end
  tag = math.max(tonumber(tag), clock_of(p, lane) - LEAD)
  if name == tenant then
    stand_tenant(p, lane, tenant, tag)
  elseif own then
    stand(p, lane, flow, tag, math.max(tonumber(own), clock_of(p, scope) - LEAD))
  end
end

-- Has a tenant or a flow come back that was only at its cap: one of its calls ended.
local function call_ended(p, lane, name, now)
  local till = held_till(p, lane, name)
  if till and till <= now + HOLD_MS then unhold(p, lane, name) end
end

-- Returns the flows of a tenant of whom jobs wait.
local function flows_of(p, lane, tenant)
  local flows = redis.call('HKEYS', p .. 'tags:' .. lane .. ':' .. tenant)
  return #flows > 0 and flows or {tenant}
end

-- How many calls a tenant (ARGV of the claim, unless it has a cap of its own) and a flow may have under way; nil: any number.
local has_caps
local function caps_kept()
  if has_caps == nil then has_caps = redis.call('EXISTS', 'sluice:caps') == 1 end
  return has_caps
end

local function any_caps(most_of_one) return most_of_one > 0 or caps_kept() end

local function caps_of(tenant, flow, most_of_one)
  local own = caps_kept() and redis.call('HMGET', 'sluice:caps', tenant, flow) or {}
  return tonumber(own[1] or nil) or most_of_one > 0 and most_of_one or nil, flow ~= tenant and tonumber(own[2] or nil) or nil
end

-- Returns how many more calls a tenant or a flow may have under way.
local function room_within(most, name, now)
  if not most then return math.huge end
  redis.call('ZREMRANGEBYSCORE', flight_of(name), '-inf', now)
  return most - redis.call('ZCARD', flight_of(name))
end

-- Counts a call that lasts until a time, where its tenant or its flow is capped.
local function under_way(most, name, id, till)
  if not most then return end
  redis.call('ZADD', flight_of(name), till, id)
  redis.call('PEXPIRE', flight_of(name), 3600000)
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
