package resource

import "go.yaml.in/yaml/v3"

const outlierKey = "outlierDetection"

// respellOutliers spreads outlierDetection over the fields that hold the same.
func respellOutliers(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	var content []*yaml.Node
	found := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		inner := value
		if inner.Kind == yaml.AliasNode && inner.Alias != nil {
			inner = inner.Alias
		}
		if key.Value != outlierKey || inner.Kind != yaml.MappingNode || found {
			content = append(content, key, value)
			continue
		}
		found = true
		for j := 0; j+1 < len(inner.Content); j += 2 {
			content = append(content, outlier(inner.Content[j], inner.Content[j+1])...)
		}
	}
	if !found {
		return n
	}
	return mapping(n, content...)
}

func outlier(key, value *yaml.Node) []*yaml.Node {
	written := outlierKey + "." + key.Value
	switch key.Value {
	case "consecutive5xxErrors":
		return []*yaml.Node{shown(key, "detectors", written),
			mapping(value, implied(key, "totalErrors"), mapping(value, implied(key, "consecutive"), value))}
	case "maxRequests":
		return []*yaml.Node{shown(key, "thresholds", written), mapping(value, implied(key, "maxRequests"), value)}
	case "interval", "baseEjectionTime", "maxEjectionPercent":
		return []*yaml.Node{shown(key, key.Value, written), value}
	}
	// As no field has such a name, it is reported with what the author wrote.
	return []*yaml.Node{shown(key, written, written), value}
}
