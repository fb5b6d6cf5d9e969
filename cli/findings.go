package cli

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// level of a finding.
type level string

const (
	problemLevel level = "problem"
	warningLevel level = "warning"
)

// finding is something to do.
type finding struct {
	Level   level  `json:"level"`
	Check   string `json:"check"`
	Subject string `json:"subject"`
	Message string `json:"message"`
	// Mend says what to do about it.
	Mend string `json:"mend"`
}

const (
	// maxSkew is how far clocks may be apart: certificates bear two hours, but tokens may live for seconds.
	maxSkew = 5 * time.Second
	// endsSoon is how long before its end a certificate is told of, or a quarter of its life where that is shorter: all that renew by
	// themselves do so before.
	endsSoon = 30 * 24 * time.Hour
	// rootEndsSoon is the same of a root, or half of its life: intermediates live for 30 days, and none outlives it.
	rootEndsSoon = 90 * 24 * time.Hour
	// Rooms on disks, in bytes. Global writes nothing below 96 MB.
	littleRoom = 1 << 30
	noRoom     = 100 << 20
	// nearQuota is the share of etcd's quota that is told of.
	nearQuota = 0.8
	// maxOfOne bounds what is told of one kind in one zone.
	maxOfOne = 20
)

// findings gathers them.
type findings struct{ all []finding }

func (f *findings) add(l level, check, subject, mend, format string, args ...any) {
	f.all = append(f.all, finding{l, check, subject, fmt.Sprintf(format, args...), mend})
}

// judge says what is to be done, problems first.
func judge(o observed, backupAge time.Duration) []finding {
	f := &findings{}
	f.global(o, backupAge)
	for _, z := range o.zones {
		f.zone(o, z)
	}
	slices.SortStableFunc(f.all, func(a, b finding) int { return cmp.Compare(a.Level, b.Level) })
	return f.all
}

func (f *findings) global(o observed, backupAge time.Duration) {
	g, now := o.global, o.after
	for _, r := range o.replicas {
		if r.Away {
			f.add(problemLevel, "store", "replica "+r.Name+" of global", "look at its log, and at the way between it and etcd; its zones go to other replicas meanwhile", "it is cut off from its store, or has just begun")
		}
	}
	f.skew("global", "this machine's", g.Time, g.Time, o.before, o.after)
	f.ends("global", g.Certificates, g.Time)
	for _, m := range g.Store.Members {
		name := "etcd " + cmp.Or(m.Endpoint, "of global")
		if m.Error != "" {
			f.add(problemLevel, "store", name, "start it again, or replace the member; as long as most are there nothing is lost", "it does not answer: %s", m.Error)
		}
		if m.Quota > 0 && float64(m.Size) > nearQuota*float64(m.Quota) {
			f.add(warningLevel, "store", name, "compact and defragment it, or raise its quota-backend-bytes", "it uses %s of its quota of %s", size(m.Size), size(m.Quota))
		}
	}
	for _, a := range g.Store.Alarms {
		f.add(problemLevel, "store", "etcd", "mend the cause (for NOSPACE compact, defragment, raise the quota), then `etcdctl alarm disarm`", "it raises an alarm, and writes nothing while it stands: %s", a)
	}
	if g.Store.DiskFree > 0 {
		f.room("global", g.Store.DiskFree)
	}
	if g.Unreadable > 0 {
		f.add(warningLevel, "version", "global", "use the newer version that wrote them, or delete them", "it can't read %s in its store", count(int(g.Unreadable), "resource"))
	}
	if g.Mismatches > 0 {
		f.add(warningLevel, "digest", "global", "nothing, if it stays that way; if the number grows, look whether anybody else writes into etcd", "what it holds differed from etcd %s since it started, and was read again", count(int(g.Mismatches), "time"))
	}
	for _, r := range g.Roots {
		f.rotation(r)
	}
	const backUp = "`zoneforge backup --out FILE`"
	switch {
	case backupAge == 0:
	case g.LastBackup.IsZero():
		f.add(warningLevel, "backup", "global", backUp, "there is no backup of this state")
	case now.Sub(g.LastBackup) > backupAge:
		f.add(warningLevel, "backup", "global", backUp, "the last backup is of %s", moment(&g.LastBackup))
	}
}

// rotation tells whom the rotation of a root waits for.
func (f *findings) rotation(r rotation) {
	name := "mesh " + r.Mesh
	if r.Problem != "" {
		f.add(problemLevel, "root", name, "mend the backend or its Secrets, or use another backend", "the root of its backend %s can't be used: %s", r.Backend, r.Problem)
	}
	if len(r.RemovedZones) > 0 {
		f.add(warningLevel, "root", name, "wait for the rotation where one is under way; a root of your own is to be replaced by another one",
			"it still trusts certificates of zones that were deleted: %s", strings.Join(r.RemovedZones, ", "))
	}
	for _, w := range r.Waiting[:min(len(r.Waiting), maxOfOne)] {
		f.add(warningLevel, "root", name, "bring the zone back, delete or disable its Zone, or `zoneforge ca rotate --mesh "+r.Mesh+" --without "+w.Zone+"`",
			"the rotation of its root waits for zone %s: %s", w.Zone, w.Reason)
	}
}

func (f *findings) zone(o observed, z zoneStatus) {
	name := "zone " + z.Zone
	if !z.Enabled {
		return
	}
	if !z.Connected {
		f.add(problemLevel, "connection", name, "look at its log, or delete the Zone where it is gone for good; its proxies keep what they have", "it is not connected since %s", moment(z.Since))
		return
	}
	switch {
	case z.Problem != "":
		f.add(problemLevel, "digest", name, "mend the cause in the zone; global tries again by itself", "it can't take what global has: %s", z.Problem)
	case !z.InSync && z.Revision == z.Wanted:
		f.add(problemLevel, "digest", name, "it is repaired by itself within a heartbeat; if not, start the zone again", "what it holds is not what global means it to hold")
	case !z.InSync:
		f.add(problemLevel, "digest", name, "look at its log, and at the way between it and global", "it is at revision %d, and global at %d", z.Revision, z.Wanted)
	}
	if z.Repairs > 0 {
		f.add(warningLevel, "digest", name, "nothing, if it stays that way; if the number grows, look at its disk and memory", "it was repaired %s since global started", count(int(z.Repairs), "time"))
	}
	for _, n := range z.Nacks[:min(len(z.Nacks), maxOfOne)] {
		f.add(problemLevel, "refusal", name, "`zoneforge inspect dataplane NAME` names the policies: mend or roll back the last change; the proxy serves with what it had", "%s", n)
	}
	for _, r := range z.Rejected[:min(len(z.Rejected), maxOfOne)] {
		f.add(problemLevel, "refusal", name, "mend the resource, or upgrade the zone where it is too old for it", "it can't use all of %s", r)
	}
	if z.Acked < z.Proxies && len(z.Nacks) == 0 {
		f.add(warningLevel, "digest", name, "`zoneforge get dataplanes` says which; look at their logs", "%d of its proxies, of which it has %d, have not acknowledged all", z.Proxies-z.Acked, z.Proxies)
	}
	if len(z.Services) > 0 && len(z.Ingresses) == 0 && len(o.zones) > 1 {
		f.add(warningLevel, "ingress", name, "run a zone ingress there, if other zones are to reach its services", "it offers services and has no ingress")
	}
	if why := o.failed[z.Zone]; why != "" {
		f.add(warningLevel, "connection", name, "upgrade the zone if it is too old to know the question, or ask again", "it was not checked further: %s", why)
		return
	}
	ups := o.checkUps[z.Zone]
	for _, replica := range ups.Silent {
		f.add(problemLevel, "connection", name, "look at the log of that replica, and at the way between it and global", "its replica %s is connected and did not answer, so it was not checked", replica)
	}
	for _, one := range ups.all() {
		of := name
		if len(ups.all())+len(ups.Silent) > 1 {
			of += ", replica " + one.Replica
		}
		f.checkUp(o, of, ups, one)
	}
}

func (f *findings) checkUp(o observed, name string, up zoneCheckUps, u zoneCheckUp) {
	for _, other := range u.Parted {
		f.add(problemLevel, "replicas", name, "open the port of gossip between them (gossip-address, TCP and UDP), or start the other one again", "it has lost replica %s, which may live, and keeps the endpoints that that one had", other)
	}
	f.skew(name, "global's", u.Began, u.Ended, up.Asked, up.Answered)
	f.ends(name, u.Certificates, up.Answered)
	f.room(name, u.DiskFree)
	if u.Recovered != "" {
		f.add(warningLevel, "disk", name, "look at the disk, and delete what was set aside", "its state was damaged when it started, and came again from global: %s", u.Recovered)
	}
	for _, i := range u.Identities {
		switch {
		case i.Problem != "":
			f.add(problemLevel, "certificate", name, "look at the logs of the zone and of global", "it has no intermediate for mesh %s, or no newer one: %s", i.Mesh, i.Problem)
		case !i.Ends.IsZero() && up.Answered.After(i.Ends):
			f.add(problemLevel, "certificate", name, "look at the zone's log", "identities of workloads in mesh %s ended on %s and were not renewed", i.Mesh, moment(&i.Ends))
		}
	}
	for _, i := range u.Ingresses {
		if i.Error != "" {
			f.add(problemLevel, "ingress", name, "open the way to that port, or mend advertisedAddress and advertisedPort in the ZoneIngress", "it can't reach the ingress %s of zone %s: %s", i.Address, i.Zone, i.Error)
		}
	}
	f.version(name, u.Version, o.global.Version)
	for _, v := range slices.Sorted(maps.Keys(u.Launchers)) {
		f.version(fmt.Sprintf("%s of %s", count(u.Launchers[v], "launcher"), name), v, o.global.Version)
	}
	if len(u.Envoys) > 1 {
		var all []string
		for _, v := range slices.Sorted(maps.Keys(u.Envoys)) {
			all = append(all, fmt.Sprintf("%d of %s", u.Envoys[v], v))
		}
		f.add(warningLevel, "version", name, "run the same Envoy everywhere once all are upgraded", "its proxies run several versions of Envoy: %s", strings.Join(all, ", "))
	}
}

// skew compares a clock that said began and ended with another that said before and after around that.
func (f *findings) skew(name, other string, began, ended, before, after time.Time) {
	const mend = "synchronise the clocks (NTP): certificates and tokens are judged by them"
	switch {
	case ended.Sub(after) > maxSkew:
		f.add(problemLevel, "clock", name, mend, "its clock is at least %s ahead of %s", ended.Sub(after).Round(time.Second), other)
	case before.Sub(began) > maxSkew:
		f.add(problemLevel, "clock", name, mend, "its clock is at least %s behind %s", before.Sub(began).Round(time.Second), other)
	}
}

// ends looks at certificates by the clock of who holds them.
func (f *findings) ends(name string, all []validity, now time.Time) {
	for _, v := range all {
		soon := min(endsSoon, v.NotAfter.Sub(v.NotBefore)/4)
		if strings.HasPrefix(v.What, "root") {
			soon = min(rootEndsSoon, v.NotAfter.Sub(v.NotBefore)/2)
		}
		switch left := v.NotAfter.Sub(now); {
		case left <= 0:
			f.add(problemLevel, "certificate", name, mendEnd(v.What), "the %s ended on %s", v.What, moment(&v.NotAfter))
		case left < soon:
			f.add(warningLevel, "certificate", name, mendEnd(v.What), "the %s ends on %s, in %s", v.What, moment(&v.NotAfter), left.Round(time.Minute))
		}
	}
}

// mendEnd says how a certificate is renewed.
func mendEnd(what string) string {
	switch {
	case strings.HasPrefix(what, "root"):
		return "`zoneforge ca rotate --mesh MESH` where it is builtin, else apply the Mesh with another backend"
	case strings.HasPrefix(what, "authority"):
		return "it is renewed by itself at a start or within a minute; then give clients the new tls/server-ca.crt"
	case strings.HasPrefix(what, "intermediate"):
		return "it is renewed by itself while the zone is connected: look at the zone's log"
	}
	return "it is renewed by itself unless it is yours: then put a new one in its place"
}

func (f *findings) room(name string, free int64) {
	switch {
	case free < noRoom:
		f.add(problemLevel, "disk", name, "make room, or no change can be written", "the disk of its data directory has %s left", size(free))
	case free < littleRoom:
		f.add(warningLevel, "disk", name, "make room before it is full", "the disk of its data directory has %s left", size(free))
	}
}

var versionNumber = regexp.MustCompile(`^v?(\d+)\.(\d+)\b`)

// version compares one with global's. Minor versions may be one apart.
func (f *findings) version(name, version, global string) {
	if version == global {
		return
	}
	a, b := versionNumber.FindStringSubmatch(version), versionNumber.FindStringSubmatch(global)
	if a != nil && b != nil {
		x, _ := strconv.Atoi(a[2])
		y, _ := strconv.Atoi(b[2])
		if a[1] != b[1] || max(x, y)-min(x, y) > 1 {
			f.add(problemLevel, "version", name, "upgrade the older one: minor versions may be one apart", "it runs version %s, and global %s", version, global)
			return
		}
	}
	f.add(warningLevel, "version", name, "finish the upgrade", "it runs version %s, and global %s", cmp.Or(version, "unknown"), global)
}

// size is a number of bytes in words.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
