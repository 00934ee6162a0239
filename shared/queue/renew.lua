-- Prolongs leases. KEYS: the pool's prefix. ARGV: lease (ms), JSON of {lane, id, key}s. What left the queue stays out.
local p = KEYS[1]
local till = now_ms() + ARGV[2]
for _, held in ipairs(cjson.decode(ARGV[3])) do
  local lane, id, key = unpack(held)
  redis.call('ZADD', p .. 'queue:' .. lane, 'XX', till, id)
  redis.call('ZADD', p .. 'flight:' .. lane .. ':' .. key, 'XX', till, id)
  local job = facts_of(p, lane, id)
  if job then redis.call('ZADD', flight_of(job.tenant), 'XX', till, id) end
  if job and job.flow ~= job.tenant and caps_kept() then redis.call('ZADD', flight_of(job.flow), 'XX', till, id) end
end
