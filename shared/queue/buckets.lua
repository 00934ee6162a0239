-- What a lane's deployments admit, one hash a key: token buckets, what the provider taught of its limits, and a circuit.
-- A limit is {r, t, i, o, flight, burst}: requests, tokens together, input and output a minute, calls at once, requests at
-- once; one that is absent is none. `learn` says that limits nobody stated are to be learned, `reserve` that the provider
-- counts the output a job allows itself and not what it used.
local DIMENSIONS = {'r', 't', 'i', 'o'}
local CATCH_UP_MS = 200
-- What a provider says is left is believed up to so many minutes' worth: some enforce their minute by the second.
local BELIEVED = 1 / 12
local FIRST_WINDOW, WIDE = 8, 256
local FIRST_GUESS = 500
local PROBE_MS = 10000
-- What a provider said of its limits holds for so long, and who rests for longer than that is not waited for by who can go
-- elsewhere.
local TOLD_MS, LONG_REST_MS = 600000, 10000

local function bucket_key(p, lane, key) return p .. 'bucket:' .. lane .. ':' .. key end

local function fields_of(name)
  local flat, held = redis.call('HGETALL', name), {}
  for i = 1, #flat, 2 do held[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1] end
  return held
end

local function keep(name) redis.call('PEXPIRE', name, 3600000) end

-- After a refusal the rate recovers by a twentieth of the limit each minute.
local function recovered(factor, refused, now)
  return math.min(1, (factor or 1) + math.max(0, now - (refused or now)) / 60000 * 0.05)
end

-- Calls that went badly and well lately: what was counted at `judged`, halved every two seconds.
local HALF_LIFE_MS = 2000
local function faded(bad, good, judged, now)
  local share = 2 ^ (-math.max(0, now - (judged or now)) / HALF_LIFE_MS)
  return (bad or 0) * share, (good or 0) * share
end

-- Returns the calls a minute that went well lately.
local function lately(good) return good * math.log(2) / HALF_LIFE_MS * 60000 end

-- Returns the limits in force: those stated, or what the provider's headers say where that is less; where nobody knows any,
-- the pace that its refusals taught, and before the first of them a window of calls at once that grows with each answer.
local function limits_in_force(held, limit, now)
  local fresh = held.told and now - held.told < TOLD_MS
  local found = {flight = limit.flight, burst = limit.burst, reserve = limit.reserve}
  local known = limit.flight
  for _, dimension in ipairs(DIMENSIONS) do
    local stated, told = limit[dimension], fresh and held['L' .. dimension]
    found[dimension] = stated and told and math.min(stated, told) or stated or told
    known = known or found[dimension]
  end
  if found.r and not found.burst and fresh and held.Lb then
    found.burst = math.max(1, math.min(held.Lb, found.r * BELIEVED))
  end
  if limit.learn and not known then
    if held.pace then
      found.r, found.paced = held.pace, true
    elseif not held.wide then
      found.flight = math.floor(held.window or FIRST_WINDOW)
    end
  end
  return found
end

-- Reads a deployment's levels, refilled to now. `mark` changes with the key's value.
local function read_bucket(p, lane, key, stated, now, mark)
  local name = bucket_key(p, lane, key)
  local held = fields_of(name)
  local limit = limits_in_force(held, stated, now)
  local bucket = {name = name, key = key, limit = limit, rest = held.rest or 0, level = {}, rate = {}, held = held, all = {}}
  if held.open and (held.why == 'errors' or held.why == mark or not mark) then bucket.open = held.open end
  local factor = limit.paced and 1 or recovered(held.factor, held.refused, now)
  local passed = held.at and math.max(0, now - held.at) or 0
  for _, dimension in ipairs(DIMENSIONS) do
    local a_minute = limit[dimension]
    if a_minute then
      local rate = a_minute * factor / 60000
      -- Without a known burst a bucket holds what a late timer needs to catch up, and it starts empty.
      local most = dimension == 'r' and limit.burst or math.max(rate * CATCH_UP_MS, 1)
      bucket.rate[dimension] = rate
      local level = held[dimension] or 0
      -- What came back stays, but for more than a minute's worth.
      level = math.min(a_minute, math.max(level, math.min(most, level + passed * rate)))
      if dimension == 'r' and stated.burst then level = math.min(level, stated.burst) end
      -- However much a call is said to have used, a minute pays for it.
      bucket.level[dimension] = math.max(-a_minute, level)
      bucket.all[dimension] = held['n' .. dimension] or 0
    end
  end
  if limit.flight then
    local flight = p .. 'flight:' .. lane .. ':' .. key
    redis.call('ZREMRANGEBYSCORE', flight, '-inf', now)
    bucket.free = limit.flight - redis.call('ZCARD', flight)
  end
  -- What has been drawn up to now and how many of these calls are under way, for whoever compares it with what the provider
  -- says is left. Calls whose worker died never come back: they count for as long as others do.
  bucket.back = passed > 60000 and bucket.all.r or held.back or 0
  bucket.mark = string.format('%d:%.0f:%.0f:%.0f:%.0f:%.0f', math.floor(now), math.max(0, (bucket.all.r or 0) - bucket.back),
    bucket.all.r or 0, bucket.all.t or 0, bucket.all.i or 0, bucket.all.o or 0)
  return bucket
end

local function write_bucket(bucket, now)
  local fields = {'at', now, 'back', bucket.back}
  for dimension, level in pairs(bucket.level) do
    for name, value in pairs({[dimension] = level, ['n' .. dimension] = bucket.all[dimension]}) do
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  if bucket.probing then
    for _, field in ipairs({'open', bucket.open, 'probing', math.floor(now)}) do fields[#fields + 1] = field end
  end
  if #fields > 4 then
    redis.call('HSET', bucket.name, unpack(fields))
    keep(bucket.name)
  end
end

-- What jobs of a tenant use in a lane, learned from those that ended: output tokens with their deviation (Jacobson's estimator,
-- SIGCOMM 1988), the tokens of an input against its estimate, how many ended, and the ms of a fast call, as of when.
local function usage_key(p, lane) return p .. 'usage:' .. lane end

local function usage_of(p, lane, tenant)
  local held = redis.call('HGET', usage_key(p, lane), tenant)
  if not held then return nil end
  local mean, dev, ratio, calls, fast, at = held:match('^([^:]+):([^:]+):([^:]+):([^:]+):([^:]+):([^:]+)$')
  return {mean = tonumber(mean), dev = tonumber(dev), ratio = tonumber(ratio), calls = tonumber(calls), fast = tonumber(fast),
    at = tonumber(at)}
end

-- Returns the ms that a tenant's calls take at least: 0 until ten are known, and less and less while none ends.
local FEW_CALLS, FORGET_MS = 10, 600000
local function least_of(p, lane, tenant, now)
  local usage = usage_of(p, lane, tenant)
  if not usage or usage.calls < FEW_CALLS then return 0 end
  return usage.fast * math.max(0, 1 - (now - usage.at) / FORGET_MS)
end

-- Returns the input and output tokens that a job draws: a minute's worth at most.
local function drawn_by(job, limit)
  local usage, allowed = job.usage, job.output > 0 and job.output or math.huge
  local input = math.floor(job.input * (usage and usage.ratio or 1) + 0.5)
  local output = math.min(allowed, usage and math.ceil(usage.mean + 2 * usage.dev) or FIRST_GUESS)
  if limit.reserve and job.output > 0 then output = job.output end
  input = math.min(input, limit.i or math.huge, limit.t or math.huge)
  return input, math.min(output, limit.o or math.huge, (limit.t or math.huge) - input)
end

local function asked(job, dimension, limit)
  if dimension == 'r' then return 1 end
  local input, output = drawn_by(job, limit)
  return dimension == 'i' and input or dimension == 'o' and output or input + output
end

-- Returns the ms until a deployment admits a job: 0 for now, nil where only a slot's coming free can tell.
local function wait_of(bucket, job, now)
  local wait = math.max(0, bucket.rest - now, (bucket.open or 0) - now)
  if bucket.free and bucket.free <= 0 then return nil end
  for dimension, rate in pairs(bucket.rate) do
    local lacking = asked(job, dimension, bucket.limit) - bucket.level[dimension]
    -- A job larger than the bucket goes when the bucket is full, and leaves it in debt.
    local most = dimension == 'r' and (bucket.limit.burst or 1) or math.max(rate * CATCH_UP_MS, 1)
    lacking = math.min(lacking, most - bucket.level[dimension])
    if lacking > 1e-9 then wait = math.max(wait, lacking / rate) end
  end
  return wait
end

local function draw(bucket, job, now)
  for dimension in pairs(bucket.rate) do
    local drawn = asked(job, dimension, bucket.limit)
    bucket.level[dimension] = bucket.level[dimension] - drawn
    bucket.all[dimension] = bucket.all[dimension] + drawn
  end
  if bucket.free then bucket.free = bucket.free - 1 end
  if bucket.open then
    -- A circuit that was open for long enough lets one call through to see how it fares.
    bucket.open = now + PROBE_MS
    bucket.probing = true
  end
end

-- Corrects what a call drew: what was drawn too much comes back, what was too little is owed.
local function give_back(p, lane, key, requests, input, output)
  if requests == 0 and input == 0 and output == 0 then return end
  local name = bucket_key(p, lane, key)
  local held = redis.call('HMGET', name, 'r', 't', 'i', 'o')
  for index, back in ipairs({requests, input + output, input, output}) do
    if held[index] and back ~= 0 then redis.call('HINCRBYFLOAT', name, DIMENSIONS[index], back) end
  end
end
