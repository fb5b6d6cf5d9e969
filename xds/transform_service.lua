-- The service gets what it needs to know beside the body in headers. Its answer with a status below 300 is the new body; one of
-- 400 to 499 says that the message is wrong, all else that the service failed. What the handle gives is void after a call, and so
-- asked for again.
local namespace = "zoneforge.transform_service"
local trouble = "the transformation service failed\n"

local function setting(handle, name)
  return handle:filterContext():get(name)
end

-- The new body, or nil and the answer's status, or nil where none came.
local function ask(handle, headers)
  local body = handle:body()
  if not body or body:length() == 0 then
    return true
  end
  headers[":method"] = "POST"
  headers[":path"] = setting(handle, "path")
  headers[":authority"] = setting(handle, "host")
  headers["content-type"] = handle:headers():get("content-type") or "application/octet-stream"
  local answer, text = handle:httpCall(setting(handle, "cluster"), headers, body:getBytes(0, body:length()), setting(handle, "timeout"))
  local status = tonumber(answer[":status"])
  if status and status >= 200 and status < 300 then
    handle:body():setBytes(text or "")
    if answer["content-type"] then
      handle:headers():replace("content-type", answer["content-type"])
    end
    return true
  end
  return false, status, answer, text
end

local function log(handle, reason)
  handle:logErr("transform service " .. setting(handle, "host") .. ": " .. tostring(reason))
end

function envoy_on_request(handle)
  local method, path = handle:headers():get(":method"), handle:headers():get(":path")
  if setting(handle, "response") then
    handle:streamInfo():dynamicMetadata():set(namespace, "method", method)
    handle:streamInfo():dynamicMetadata():set(namespace, "path", path)
  end
  if not setting(handle, "request") then
    return
  end
  local called, done, status, answer, text = pcall(ask, handle, {["x-transform"] = "request", ["x-original-method"] = method, ["x-original-path"] = path})
  if called and done then
    return
  end
  if called and status and status >= 400 and status < 500 then
    handle:respond({[":status"] = tostring(status), ["content-type"] = answer["content-type"] or "text/plain"}, text or "")
    return
  end
  log(handle, called and "status " .. tostring(status) or done)
  if not setting(handle, "open") then
    handle:respond({[":status"] = "502"}, trouble)
  end
end

function envoy_on_response(handle)
  if not setting(handle, "response") then
    return
  end
  -- Envoy's own answers, such as a refusal by an earlier filter, come from no backend.
  local asked = handle:streamInfo():dynamicMetadata():get(namespace)
  if not asked then
    return
  end
  local called, done, status = pcall(ask, handle, {["x-transform"] = "response", ["x-original-method"] = asked["method"],
    ["x-original-path"] = asked["path"], ["x-original-status"] = handle:headers():get(":status")})
  if called and done then
    return
  end
  log(handle, called and "status " .. tostring(status) or done)
  if not setting(handle, "open") then
    handle:headers():replace(":status", "502")
    handle:headers():replace("content-type", "text/plain")
    handle:headers():remove("content-encoding")
    handle:body(true):setBytes(trouble)
  end
end
