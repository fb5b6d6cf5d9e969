package global

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/global/zones"
)

// standings shows the rotation of roots how zones stand.
type standings struct{ *zones.Registry }

// Standings is ca.Zones's.
func (s standings) Standings(mesh string) []ca.Standing {
	all := s.Registry.Standings(mesh)
	out := make([]ca.Standing, len(all))
	for i, z := range all {
		out[i] = ca.Standing(z)
	}
	return out
}

// rootsCollector tells of roots when figures are asked for.
type rootsCollector struct{ rotator *ca.Rotator }

var (
	rootEndDesc     = prometheus.NewDesc("zoneforge_root_end_seconds", "When the root that signs for a mesh ends, in seconds since 1970.", []string{"mesh"}, nil)
	rootTrustedDesc = prometheus.NewDesc("zoneforge_root_trusted", "Roots that a mesh trusts; more than one while they are rotated.", []string{"mesh"}, nil)
	rootRemovedDesc = prometheus.NewDesc("zoneforge_root_removed_zones", "Deleted Zones whose certificates a mesh still trusts.", []string{"mesh"}, nil)
	rootWaitingDesc = prometheus.NewDesc("zoneforge_root_rotation_waiting_zones", "Zones that hold the phase of a rotation of roots.", []string{"mesh", "phase"}, nil)
)

// Describe is prometheus.Collector's.
func (c rootsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rootEndDesc, rootTrustedDesc, rootRemovedDesc, rootWaitingDesc} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c rootsCollector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.rotator.Rotations() {
		ch <- prometheus.MustNewConstMetric(rootTrustedDesc, prometheus.GaugeValue, float64(len(r.Roots)), r.Mesh)
		ch <- prometheus.MustNewConstMetric(rootRemovedDesc, prometheus.GaugeValue, float64(len(r.RemovedZones)), r.Mesh)
		for _, root := range r.Roots {
			if root.Signs {
				ch <- prometheus.MustNewConstMetric(rootEndDesc, prometheus.GaugeValue, float64(root.NotAfter.Unix()), r.Mesh)
			}
		}
		if r.Phase != ca.PhaseNone {
			ch <- prometheus.MustNewConstMetric(rootWaitingDesc, prometheus.GaugeValue, float64(len(r.Waiting)), r.Mesh, string(r.Phase))
		}
	}
}
