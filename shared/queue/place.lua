-- Where a waiting job stands. KEYS: the pool's prefix. ARGV: lane, id, JSON of {lane or '*': [{key, weight, limit, mark}, ...]}.
-- Returns {jobs that go before it, jobs/s of the lane}, or false for a job that does not wait there.
local SAMPLES, SAMPLED_TENANTS, TENANTS = 16, 16, 500
local p, lane, id = KEYS[1], ARGV[2], ARGV[3]
local now = now_ms()
local job = facts_of(p, lane, id)
local rank = job and redis.call('ZRANK', p .. 'waiting:' .. lane .. ':' .. job.tenant, id)
if not rank then return false end

-- Returns what each of a few evenly spaced jobs among a tenant's first `count` weighs, and how many jobs each stands for.
local function weights(tenant, count)
  local found, step = {}, math.max(1, count / SAMPLES)
  local usage = usage_of(p, lane, tenant)
  for at = 0, count - 1, step do
    local place = math.floor(at)
    local one = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. tenant, place, place)[1]
    local facts = one and facts_of(p, lane, one)
    if facts then
      facts.usage = usage
      found[#found + 1] = charge(facts)
    end
  end
  return found, step
end

local function tag_of(tenant) return tonumber(redis.call('HGET', p .. 'tags:' .. lane, tenant) or 0) end

-- The virtual time at which the job's turn comes.
local mine, step = weights(job.tenant, rank)
local turn = tag_of(job.tenant)
for _, weight in ipairs(mine) do turn = turn + weight * step end

local before = rank
for index, tenant in ipairs(redis.call('ZRANGE', p .. 'turns:' .. lane, 0, TENANTS - 1)) do
  if tenant ~= job.tenant then
    local waiting = redis.call('ZCARD', p .. 'waiting:' .. lane .. ':' .. tenant)
    if index > SAMPLED_TENANTS then
      before = before + math.min(waiting, rank + 1)
    else
      -- Of another tenant's jobs those go before whose turn comes before.
      local theirs, apart = weights(tenant, waiting)
      local tag, count = tag_of(tenant), 0
      for _, weight in ipairs(theirs) do
        if tag >= turn then break end
        count = count + math.min(apart, (turn - tag) / weight)
        tag = tag + weight * apart
      end
      before = before + math.floor(math.min(waiting, count + 0.5))
    end
  end
end

-- What the limits let through, where they are known: more than that was a burst.
local pace, allowed = pace_of(p, lane, now), 0
local all = cjson.decode(ARGV[4])
for _, one in ipairs(all[lane] or all['*'] or {}) do
  allowed = allowed + (read_bucket(p, lane, one[1], one[3], now, one[4]).rate.r or math.huge) * 1000
end
if allowed > 0 and allowed < math.huge then pace = pace > 0 and math.min(pace, allowed) or allowed end
return {before, tostring(pace)}
