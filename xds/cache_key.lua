-- Before the cache: what the answer depends on goes into the path, behind all that the client wrote, so that nobody else
-- can write it there. Behind the cache cache_fill.lua takes it off.

-- all values of a header, each with its length, so that no value looks like two.
local function values(headers, name)
  local n = headers:getNumValues(name)
  local out = n .. ";"
  for i = 0, n - 1 do
    local value = headers:getAtIndex(name, i)
    out = out .. #value .. ":" .. value
  end
  return out
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local context = handle:filterContext()
  local id = context:get("id")
  local key = id
  for name in string.gmatch(context:get("vary"), "[^,]+") do
    key = key .. values(headers, name)
  end
  local path = headers:get(":path")
  local mark = string.find(path, "?", 1, true) and "&" or "?"
  headers:replace("x-zoneforge-route", id)
  headers:replace("x-zoneforge-for", headers:get("x-forwarded-for") or "")
  headers:replace("x-envoy-original-path", path)
  -- The way to the second half is the proxy's own: a connection that ends there, as when its listener changes, is no
  -- failure of the route. What may have been done already is not done again.
  local method = headers:get(":method")
  local safe = method == "GET" or method == "HEAD"
  headers:replace("x-envoy-retry-on", "connect-failure,refused-stream," .. (safe and "reset" or "reset-before-request"))
  headers:replace("x-envoy-max-retries", "3")
  headers:replace(":path", path .. mark .. "zoneforge-cache=" .. handle:base64Escape(key))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local vary = headers:get("x-zoneforge-vary")
  if vary ~= nil then
    headers:replace("vary", vary)
    headers:remove("x-zoneforge-vary")
  end
  local control = headers:get("x-zoneforge-control")
  if control ~= nil then
    headers:remove("x-zoneforge-control")
    if control == "none" then
      headers:remove("cache-control")
    else
      headers:replace("cache-control", control)
    end
  end
end
