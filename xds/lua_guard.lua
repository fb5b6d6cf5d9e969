local chunk, problem = loadstring({{script}}, "=script")
if chunk then
  local loaded, failure = pcall(chunk)
  if not loaded then
    chunk, problem = nil, failure
  end
end
local open, request, response = {{open}}, envoy_on_request, envoy_on_response
if not chunk then
  request, response = function() error(problem, 0) end, nil
end

-- An error that Envoy sees lets the message pass, is logged and counted.
if open then
  envoy_on_request, envoy_on_response = request, response
else
  envoy_on_request = request and function(handle)
    local ok, failure = pcall(request, handle)
    if not ok then
      handle:logErr(tostring(failure))
      handle:respond({[":status"] = "500"}, "a script of this route failed\n")
    end
  end
  envoy_on_response = response and function(handle)
    local ok, failure = pcall(response, handle)
    if not ok then
      handle:logErr(tostring(failure))
      handle:headers():replace(":status", "500")
      handle:headers():replace("content-type", "text/plain")
      handle:headers():remove("content-encoding")
      handle:body(true):setBytes("a script of this route failed\n")
    end
  end
end
