package resource

import (
	"google.golang.org/protobuf/proto"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// registry is the one place where kinds are registered.
var registry = []*Kind{
	{
		Name: "Mesh", Plural: "meshes", APIVersion: KumaV1Alpha1, Scope: ScopeGlobal, ToZones: true,
		Summary:  "a tenant with its certificate authorities",
		New:      func() proto.Message { return &meshv1.Mesh{} },
		validate: validateMesh,
	},
	{
		Name: "Zone", Plural: "zones", APIVersion: KumaV1Alpha1, Scope: ScopeGlobal,
		Summary: "a cluster, region or site with its own control plane",
		New:     func() proto.Message { return &meshv1.Zone{} },
	},
	{
		Name: "ZoneIngress", Plural: "zone-ingresses", Aliases: []string{"zi", "zoneingresses"}, APIVersion: KumaV1Alpha1,
		Scope: ScopeGlobal, Writer: WriterProxy, ToZones: true,
		Summary:  "the proxy through which other zones reach a zone's services",
		New:      func() proto.Message { return &meshv1.ZoneIngress{} },
		validate: validateZoneIngress,
	},
	{
		Name: "Dataplane", Plural: "dataplanes", Aliases: []string{"dp"}, APIVersion: KumaV1Alpha1, Writer: WriterProxy,
		Summary:  "one proxy: a sidecar or a builtin gateway",
		New:      func() proto.Message { return &meshv1.Dataplane{} },
		validate: validateDataplane,
	},
	{
		Name: "Secret", Plural: "secrets", APIVersion: KumaV1Alpha1, ToZones: true, Sensitive: true,
		Summary:  "sensitive bytes, such as a certificate with its key",
		New:      func() proto.Message { return &meshv1.Secret{} },
		validate: validateSecret,
	},
	{
		Name: "MeshGateway", Plural: "mesh-gateways", Aliases: []string{"mgw", "meshgateways"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "listeners of builtin gateways",
		New:      func() proto.Message { return &meshv1.MeshGateway{} },
		validate: validateMeshGateway,
	},
	{
		Name: "MeshGatewayRoute", Plural: "mesh-gateway-routes", Aliases: []string{"mgwr", "meshgatewayroutes"}, APIVersion: KumaV1Alpha1,
		ToZones:  true,
		Summary:  "routes of requests that enter a gateway",
		New:      func() proto.Message { return &meshv1.MeshGatewayRoute{} },
		validate: validateMeshGatewayRoute,
	},
	{
		Name: "TrafficPermission", Plural: "traffic-permissions", Aliases: []string{"tp", "trafficpermissions"}, APIVersion: KumaV1Alpha1,
		ToZones:  true,
		Summary:  "who may connect to whom",
		New:      func() proto.Message { return &meshv1.TrafficPermission{} },
		validate: validateTrafficPermission,
	},
	{
		Name: "TrafficRoute", Plural: "traffic-routes", Aliases: []string{"tr", "trafficroutes"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "splits and steers traffic between services",
		New:      func() proto.Message { return &meshv1.TrafficRoute{} },
		validate: validateTrafficRoute,
	},
	{
		Name: "Timeout", Plural: "timeouts", APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "bounds of connections and requests",
		New:      func() proto.Message { return &meshv1.Timeout{} },
		validate: validateTimeout,
	},
	{
		Name: "Retry", Plural: "retries", APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "repeats failed requests and connections",
		New:      func() proto.Message { return &meshv1.Retry{} },
		validate: validateRetry, normalize: normalizeRetry,
	},
	{
		Name: "TrafficLog", Plural: "traffic-logs", Aliases: []string{"tl", "trafficlogs"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "access logs of requests and connections",
		New:      func() proto.Message { return &meshv1.TrafficLog{} },
		validate: validateTrafficLog,
	},
	{
		Name: "TrafficTrace", Plural: "traffic-traces", Aliases: []string{"tt", "traffictraces"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "spans of requests",
		New:      func() proto.Message { return &meshv1.TrafficTrace{} },
		validate: validateTrafficTrace,
	},
	{
		Name: "MeshTrafficTrace", Plural: "mesh-traffic-traces", Aliases: []string{"meshtraffictraces"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "TrafficTrace by another name",
		New:      func() proto.Message { return &meshv1.TrafficTrace{} },
		validate: validateTrafficTrace,
	},
	{
		Name: "ProxyTemplate", Plural: "proxy-templates", Aliases: []string{"proxytemplates"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "changes of Envoy's configuration that no other policy can say",
		New:      func() proto.Message { return &meshv1.ProxyTemplate{} },
		validate: validateProxyTemplate,
	},
	{
		Name: "RateLimit", Plural: "rate-limits", Aliases: []string{"rl", "ratelimits"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "bounds how many requests pass a gateway or reach a service",
		New:      func() proto.Message { return &meshv1.RateLimit{} },
		validate: validateRateLimit,
	},
	{
		Name: "FaultInjection", Plural: "fault-injections", Aliases: []string{"fi", "faultinjections"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "makes requests to a service fail, wait or slow down",
		New:      func() proto.Message { return &meshv1.FaultInjection{} },
		validate: validateFaultInjection,
	},
	{
		Name: "FilterPolicy", Plural: "filter-policies", Aliases: []string{"fp", "filterpolicies"}, APIVersion: ZoneforgeV1Alpha1, ToZones: true,
		Summary:  "filters for gateways, some of their routes, or workloads",
		New:      func() proto.Message { return &meshv1.FilterPolicy{} },
		validate: validateFilterPolicy,
	},
	{
		Name: "Composition", Plural: "compositions", APIVersion: ZoneforgeV1Alpha1, ToZones: true,
		Summary:  "an endpoint that puts the answers of several services together",
		New:      func() proto.Message { return &meshv1.Composition{} },
		validate: validateComposition,
	},
	{
		Name: "ExternalService", Plural: "external-services", Aliases: []string{"es", "externalservices"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "a service outside the mesh",
		New:      func() proto.Message { return &meshv1.ExternalService{} },
		validate: validateExternalService,
	},
	{
		Name: "CircuitBreaker", Plural: "circuit-breakers", Aliases: []string{"cb", "circuitbreakers"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "limits of what is under way, and outliers",
		New:      func() proto.Message { return &meshv1.CircuitBreaker{} },
		validate: validateCircuitBreaker, normalize: normalizeCircuitBreaker,
	},
	{
		Name: "HealthCheck", Plural: "health-checks", Aliases: []string{"hc", "healthchecks"}, APIVersion: KumaV1Alpha1, ToZones: true,
		Summary:  "asks endpoints whether they are well",
		New:      func() proto.Message { return &meshv1.HealthCheck{} },
		validate: validateHealthCheck, normalize: normalizeHealthCheck,
	},
	{
		Name: "LocalityPolicy", Plural: "locality-policies", Aliases: []string{"lp", "localitypolicies"}, APIVersion: ZoneforgeV1Alpha1, ToZones: true,
		Summary:  "which zones serve a destination, in which order",
		New:      func() proto.Message { return &meshv1.LocalityPolicy{} },
		validate: validateLocalityPolicy,
	},
	{
		Name: "TrustBundle", Plural: "trust-bundles", APIVersion: ZoneforgeV1Alpha1, Writer: WriterSystem, ToZones: true,
		Summary: "root certificates of a mesh",
		New:     func() proto.Message { return &federationv1.TrustBundle{} },
	},
	{
		Name: "VerificationKeys", Plural: "verification-keys", APIVersion: ZoneforgeV1Alpha1, Scope: ScopeGlobal, Writer: WriterSystem,
		ToZones: true,
		Summary: "public keys by which zones verify dataplane tokens",
		New:     func() proto.Message { return &federationv1.VerificationKeys{} },
	},
	{
		Name: "ServiceAvailability", Plural: "service-availabilities", APIVersion: ZoneforgeV1Alpha1, Writer: WriterSystem, ToZones: true,
		Summary: "endpoints of a service in one zone",
		New:     func() proto.Message { return &federationv1.ServiceAvailability{} },
	},
	{
		Name: "CertificateAuthority", Plural: "certificate-authorities", APIVersion: ZoneforgeV1Alpha1, Writer: WriterSystem, Sensitive: true,
		Summary: "root of a mesh with its sealed key",
		New:     func() proto.Message { return &federationv1.CertificateAuthority{} },
	},
	{
		Name: "SigningKey", Plural: "signing-keys", APIVersion: ZoneforgeV1Alpha1, Scope: ScopeGlobal, Writer: WriterSystem, Sensitive: true,
		Summary: "key that signs tokens",
		New:     func() proto.Message { return &federationv1.SigningKey{} },
	},
	{
		Name: "RemovedZone", Plural: "removed-zones", APIVersion: ZoneforgeV1Alpha1, Scope: ScopeGlobal, Writer: WriterSystem,
		Summary: "a zone that was deleted, whose tokens are refused and whose certificates lose their root",
		New:     func() proto.Message { return &federationv1.RemovedZone{} },
	},
	{
		Name: "RevokedToken", Plural: "revoked-tokens", APIVersion: ZoneforgeV1Alpha1, Scope: ScopeGlobal, Writer: WriterSystem,
		Summary: "a token that is refused before its end",
		New:     func() proto.Message { return &federationv1.RevokedToken{} },
	},
}
