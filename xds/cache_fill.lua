-- Behind the cache: the request becomes what the client sent, and the answer says to the cache whether it may keep it.

-- all values of a header, joined as a list; nil without one.
local function joined(headers, name)
  local n = headers:getNumValues(name)
  if n == 0 then
    return nil
  end
  local out = headers:getAtIndex(name, 0)
  for i = 1, n - 1 do
    out = out .. ", " .. headers:getAtIndex(name, i)
  end
  return out
end

-- whether a list has a word, such as a directive of Cache-Control.
local function has(list, word)
  for one in string.gmatch(string.lower(list), "[^,%s=]+") do
    if one == word then
      return true
    end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = string.gsub(headers:get(":path"), "[?&]zoneforge%-cache=[%w+/=]*$", "")
  headers:replace(":path", path)
  -- The cache's own address is no part of the way from the client.
  local addresses = headers:get("x-zoneforge-for")
  headers:remove("x-forwarded-for")
  if addresses ~= nil and addresses ~= "" then
    headers:replace("x-forwarded-for", addresses)
  end
  headers:remove("x-zoneforge-for")
  headers:remove("x-zoneforge-route")
  headers:remove("x-envoy-original-path")
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local context = handle:filterContext()
  headers:remove("x-zoneforge-vary")
  headers:remove("x-zoneforge-control")
  local control = joined(headers, "cache-control")
  if control == nil and context:get("ttl") > 0 and headers:get("expires") == nil and headers:get(":status") == "200" then
    control = string.format("max-age=%d", context:get("ttl"))
    headers:replace("cache-control", control)
  end
  -- A cookie is for one client.
  local keep = headers:get("set-cookie") == nil
  if context:get("public") then
    keep = keep and control ~= nil and (has(control, "public") or has(control, "s-maxage") or has(control, "must-revalidate"))
  end
  local length = tonumber(headers:get("content-length") or "0")
  if context:get("body") > 0 and length ~= nil and length > context:get("body") then
    keep = false
  end
  local vary = joined(headers, "vary")
  if vary ~= nil then
    for name in string.gmatch(string.lower(vary), "[^,%s]+") do
      keep = keep and has(context:get("vary"), name)
    end
    headers:replace("x-zoneforge-vary", vary)
    headers:remove("vary")
  end
  if not keep then
    headers:replace("x-zoneforge-control", control or "none")
    headers:replace("cache-control", "no-store")
  end
end
