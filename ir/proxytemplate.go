package ir

// Template changes a proxy's Envoy resources after they were built. Documents in it are JSON with the field names of Envoy's
// protobuf messages.
type Template struct {
	// From tells which resource it came from.
	From          string
	Resources     []TemplateResource
	Modifications []Modification
	Patches       []Patch
}

// TemplateResource is a resource to add; its @type says of which kind.
type TemplateResource struct {
	Name string
	JSON string
}

// Target is what a Modification is about.
type Target string

// Targets.
const (
	TargetCluster       Target = "cluster"
	TargetListener      Target = "listener"
	TargetNetworkFilter Target = "networkFilter"
	TargetHTTPFilter    Target = "httpFilter"
	TargetVirtualHost   Target = "virtualHost"
)

// Modification adds, merges into or removes what matches. Empty members of the match take all.
type Modification struct {
	Target Target
	// Operation is add, patch or remove, and for filters addFirst, addLast, addBefore, addAfter, patch or remove.
	Operation string
	Name      string
	Origin    Origin
	// Listener is the name of the listener of a filter, Routes that of the route configuration of a virtual host.
	Listener string
	Routes   string
	// Tags are those of the listener; the value * takes any.
	Tags map[string]string
	JSON string
}

// PatchType is the type of resource that a Patch is about.
type PatchType string

// Types of resources.
const (
	PatchListener  PatchType = "listener"
	PatchRoute     PatchType = "route"
	PatchCluster   PatchType = "cluster"
	PatchExtension PatchType = "extension"
)

// Patch changes the JSON form of the resources that match: by Merge (RFC 7396), or by Operations (RFC 6902).
type Patch struct {
	Type PatchType
	// Name and NameRegex match the whole name; of both empty, all match.
	Name, NameRegex string
	Origin          Origin
	Merge           string
	// Operations is a JSON array.
	Operations string
}

// Origin says what a resource is there for.
type Origin string

// Origins.
const (
	OriginInbound  Origin = "inbound"
	OriginOutbound Origin = "outbound"
	OriginGateway  Origin = "gateway"
	// OriginOther is that of what serves no traffic of workloads.
	OriginOther Origin = "other"
)
