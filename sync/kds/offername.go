package kds

import "strings"

// OfferName is the name of what a zone offers, as a replica of it reports that; replica is empty where the zone runs in one. Each
// replica has records of its own, so that none takes back what another one reports.
func OfferName(zone, name, replica string) string {
	if replica == "" {
		return zone + "." + name
	}
	return zone + "." + name + "@" + replica
}

// SplitOfferName gives the part of a record's name that all replicas share, and the replica that reports it, empty where the zone runs
// in one.
func SplitOfferName(name string) (shared, replica string) {
	shared, replica, _ = strings.Cut(name, "@")
	return shared, replica
}
