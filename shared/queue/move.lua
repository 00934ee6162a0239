-- Takes jobs out of motion. KEYS: the pool's prefix. ARGV: JSON of {lane, id, due (ms; -1: it left the queue), the key of its
-- deployment (false: it had none), requests, input and output tokens that come back to the key's buckets (below 0: what it used
-- besides), input and output tokens that were used (-1: nobody knows), ms that its call took (-1: it did not go well), when it
-- was drawn for (ms)}s.
local p = KEYS[1]
local now = now_ms()
local fresh = false

-- Counts calls of a deployment that came back, and sees to its circuit.
local function came_back(lane, key, calls)
  give_back(p, lane, key, calls.requests, calls.input, calls.output)
  redis.call('ZREM', p .. 'flight:' .. lane .. ':' .. key, unpack(calls.ids))
  local name = bucket_key(p, lane, key)
  local held = redis.call('HMGET', name, 'back', 'open', 'probing', 'opened')
  if held[1] then redis.call('HINCRBY', name, 'back', #calls.ids) end
  for index, at in ipairs(held[2] and calls.at or {}) do
    if calls.took[index] >= 0 and at >= tonumber(held[4]) then
      redis.call('HDEL', name, 'open', 'opened', 'opens', 'why', 'probing')
    elseif held[3] and at >= tonumber(held[3]) and redis.call('HDEL', name, 'probing') == 1 then
      -- The call that tried came back without a word on the provider: the next one tries.
      redis.call('HSET', name, 'open', now)
    end
  end
end

-- Learns from calls that went well: how long they take, that the circuit is sound, and that more may go.
local function went_well(lane, key, times)
  local name = bucket_key(p, lane, key)
  local held = fields_of(name)
  local mean, dev = held.mean, held.dev or 0
  for _, took in ipairs(times) do
    mean = mean or took
    dev = dev + (math.abs(took - mean) - dev) / 4
    mean = mean + (took - mean) / 8
  end
  local bad, good = faded(held.bad, held.good, held.judged, now)
  good = good + #times
  redis.call('HSET', name, 'mean', mean, 'dev', dev, 'calls', math.min((held.calls or 0) + #times, 1000000), 'good', good,
    'bad', bad, 'judged', now, 'streak', 0)
  if held.pace then
    -- What is used grows by a sixth a second up to near where it was refused, and from there with care.
    local step = held.pace < 0.9 * held.ceiling and 10 or 0.3
    if lately(good) > held.pace / 2 then redis.call('HSET', name, 'pace', held.pace + step * #times) end
  elseif not held.wide then
    -- A window that is used grows by half each time that its calls come back.
    local window = held.window or FIRST_WINDOW
    if redis.call('ZCARD', p .. 'flight:' .. lane .. ':' .. key) + #times >= window / 3 then
      window = window + #times / 2
      redis.call('HSET', name, window > WIDE and 'wide' or 'window', window)
    end
  end
  keep(name)
end

-- Learns what a tenant's jobs use: {estimate of the input, input, output, ms}s.
local function used(lane, tenant, jobs)
  local known = usage_of(p, lane, tenant)
  for _, one in ipairs(jobs) do
    local estimate, input, output, took = unpack(one)
    local ratio = math.max(0.1, math.min(10, estimate > 0 and input / estimate or 1))
    known = known or {mean = output, dev = output / 2, ratio = ratio, calls = 0, fast = took, at = now}
    -- One odd answer must not weigh on all that follow.
    output = math.min(output, 1000 + 4 * (known.mean + 4 * known.dev))
    if took >= 0 then
      -- Near the fastest of late: it follows a faster call at once, and slower ones slowly.
      known.fast = math.min(took, known.fast + 0.05 * (took - known.fast))
      known.calls, known.at = math.min(known.calls + 1, 1000), now
    end
    known.dev = known.dev + (math.abs(output - known.mean) - known.dev) / 8
    known.mean = known.mean + (output - known.mean) / 16
    known.ratio = known.ratio + (ratio - known.ratio) / 16
  end
  local name = usage_key(p, lane)
  redis.call('HSET', name, tenant, string.format('%.1f:%.1f:%.3f:%d:%.1f:%.0f', known.mean, known.dev, known.ratio,
    known.calls, known.fast, known.at))
  redis.call('PEXPIRE', name, 86400000)
end

local lanes = {}
for _, one in ipairs(cjson.decode(ARGV[2])) do
  lanes[one[1]] = lanes[one[1]] or {ids = {}}
  table.insert(lanes[one[1]], one)
  table.insert(lanes[one[1]].ids, one[2])
end

for lane, moves in pairs(lanes) do
  local gone, due, claimed, tenants, flows, keys = {}, {}, {}, {}, {}, {}
  local facts = redis.call('HMGET', p .. 'facts:' .. lane, unpack(moves.ids))
  for index, one in ipairs(moves) do
    local _, id, at, key, requests, input, output, used_input, used_output, took, drawn_at = unpack(one)
    local job = parsed(facts[index])
    if job then
      local tenant, flow = tenants[job.tenant] or {ids = {}, used = {}}, flows[job.flow] or {}
      tenants[job.tenant], flows[job.flow] = tenant, flow
      tenant.ids[#tenant.ids + 1], flow[#flow + 1] = id, id
      if used_output >= 0 then table.insert(tenant.used, {job.input, used_input, used_output, took}) end
      if job.deadline then redis.call('ZREM', p .. 'deadlines:' .. lane .. ':' .. job.flow, id) end
    end
    if key then
      local calls = keys[key] or {ids = {}, took = {}, at = {}, well = {}, requests = 0, input = 0, output = 0}
      keys[key] = calls
      calls.requests, calls.input, calls.output = calls.requests + requests, calls.input + input, calls.output + output
      calls.ids[#calls.ids + 1] = id
      calls.took[#calls.took + 1] = took
      calls.at[#calls.at + 1] = drawn_at
      if took >= 0 then calls.well[#calls.well + 1] = took end
    end
    if at < 0 then
      gone[#gone + 1] = id
    else
      due[#due + 1] = at
      due[#due + 1] = id
      redis.call('ZADD', p .. 'lanes', 'LT', at, lane)
      fresh = fresh or at <= now
    end
    claimed[#claimed + 1] = 'arq:job:' .. id
    claimed[#claimed + 1] = 'arq:retry:' .. id
  end
  for flow, ids in pairs(flows) do
    if redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. flow, unpack(ids)) > 0 then stand_again(p, lane, flow) end
    if not tenants[flow] and caps_kept() and redis.call('ZREM', flight_of(flow), unpack(ids)) > 0 then
      call_ended(p, lane, flow, now)
    end
  end
  for name, tenant in pairs(tenants) do
    if redis.call('ZREM', flight_of(name), unpack(tenant.ids)) > 0 then call_ended(p, lane, name, now) end
    if #tenant.used > 0 then used(lane, name, tenant.used) end
  end
  for key, calls in pairs(keys) do
    came_back(lane, key, calls)
    if #calls.well > 0 then went_well(lane, key, calls.well) end
    redis.call('ZADD', p .. 'lanes', 'LT', 'XX', now, lane)
    fresh = true
  end
  if #gone > 0 then
    redis.call('ZREM', p .. 'queue:' .. lane, unpack(gone))
    redis.call('HDEL', p .. 'facts:' .. lane, unpack(gone))
  end
  if #due > 0 then redis.call('ZADD', p .. 'queue:' .. lane, unpack(due)) end
  redis.call('DEL', unpack(claimed))
end
if fresh then wake(p) end
