-- Token buckets of a lane's deployments, one a key: requests (r), tokens together (t), input (i), output (o), each a level
-- that refills with time, and what is in flight. A limit is {r, t, i, o, flight, burst}, per minute; one that is absent is none.
local DIMENSIONS = {'r', 't', 'i', 'o'}
local CATCH_UP_MS = 200

local function bucket_key(p, lane, key) return p .. 'bucket:' .. lane .. ':' .. key end

-- After a refusal the rate recovers by a twentieth of the limit each minute.
local function recovered(factor, refused, now)
  return math.min(1, tonumber(factor or 1) + math.max(0, now - tonumber(refused or now)) / 60000 * 0.05)
end

-- Reads a deployment's levels, refilled to now.
local function read_bucket(p, lane, key, limit, now)
  local name = bucket_key(p, lane, key)
  local held = redis.call('HMGET', name, 'at', 'r', 't', 'i', 'o', 'rest', 'factor', 'refused')
  local bucket = {name = name, key = key, limit = limit, rest = tonumber(held[6] or 0), level = {}, rate = {}}
  local factor = recovered(held[7], held[8], now)
  local passed = held[1] and math.max(0, now - tonumber(held[1])) or 0
  for index, dimension in ipairs(DIMENSIONS) do
    local a_minute = limit[dimension]
    if a_minute then
      local rate = a_minute * factor / 60000
      -- Without a known burst a bucket holds what a late timer needs to catch up, and it starts empty.
      local most = dimension == 'r' and limit.burst or math.max(rate * CATCH_UP_MS, 1)
      bucket.rate[dimension] = rate
      local level = tonumber(held[index + 1] or 0)
      -- What came back stays, but for more than a minute's worth.
      bucket.level[dimension] = math.min(a_minute, math.max(level, math.min(most, level + passed * rate)))
    end
  end
  if limit.flight then
    local flight = p .. 'flight:' .. lane .. ':' .. key
    redis.call('ZREMRANGEBYSCORE', flight, '-inf', now)
    bucket.free = limit.flight - redis.call('ZCARD', flight)
  end
  return bucket
end

local function write_bucket(bucket, now)
  local fields = {'at', now}
  for dimension, level in pairs(bucket.level) do
    fields[#fields + 1] = dimension
    fields[#fields + 1] = level
  end
  if #fields > 2 then
    redis.call('HSET', bucket.name, unpack(fields))
    redis.call('PEXPIRE', bucket.name, 3600000)
  end
end

-- Returns the input and output tokens that a job draws: a minute's worth at most.
local function drawn_by(job, limit)
  local input = math.min(job.input, limit.i or math.huge, limit.t or math.huge)
  return input, math.min(job.output, limit.o or math.huge, (limit.t or math.huge) - input)
end

local function asked(job, dimension, limit)
  if dimension == 'r' then return 1 end
  local input, output = drawn_by(job, limit)
  return dimension == 'i' and input or dimension == 'o' and output or input + output
end

-- Returns the ms until a deployment admits a job: 0 for now, nil where only a slot's coming free can tell.
local function wait_of(bucket, job, now)
  local wait = math.max(0, bucket.rest - now)
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

local function draw(bucket, job)
  for dimension in pairs(bucket.rate) do
    bucket.level[dimension] = bucket.level[dimension] - asked(job, dimension, bucket.limit)
  end
  if bucket.free then bucket.free = bucket.free - 1 end
end

-- Corrects what a call drew: what was drawn too much comes back, what was too little is owed.
local function give_back(p, lane, key, input, output)
  if input == 0 and output == 0 then return end
  local name = bucket_key(p, lane, key)
  local held = redis.call('HMGET', name, 't', 'i', 'o')
  if held[1] then redis.call('HINCRBYFLOAT', name, 't', input + output) end
  if held[2] then redis.call('HINCRBYFLOAT', name, 'i', input) end
  if held[3] then redis.call('HINCRBYFLOAT', name, 'o', output) end
end
