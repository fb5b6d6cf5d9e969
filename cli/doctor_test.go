package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// well is a federation in which nothing is wrong.
func well() observed {
	o := observed{before: noon, after: noon.Add(time.Second), checkUps: map[string]zoneCheckUps{}, failed: map[string]string{}}
	o.global.Time, o.global.Version, o.global.LastBackup = noon, "1.4.0", noon.Add(-time.Hour)
	o.global.Store.DiskFree = 20 << 30
	o.global.Certificates = []validity{{"server certificate", noon.Add(-time.Hour), noon.Add(80 * 24 * time.Hour)}}
	for _, name := range []string{"east", "west"} {
		o.zones = append(o.zones, zoneStatus{Zone: name, Connected: true, Enabled: true, InSync: true, Revision: 7, Wanted: 7, Proxies: 2, Acked: 2})
		up := zoneCheckUp{Replica: name, Began: noon, Ended: noon.Add(time.Second), Version: "1.4.0", DiskFree: 20 << 30,
			Envoys: map[string]int{"1.40.0": 2}, Launchers: map[string]int{"1.4.0": 2}}
		o.checkUps[name] = zoneCheckUps{Asked: noon, Answered: noon.Add(time.Second), CheckUps: []zoneCheckUp{up}}
	}
	return o
}

func TestEachFindingIsFoundAlone(t *testing.T) {
	if all := judge(well(), 24*time.Hour); len(all) != 0 {
		t.Fatalf("a federation that is well: %+v", all)
	}
	up := func(o *observed, change func(*zoneCheckUp)) {
		change(&o.checkUps["west"].CheckUps[0])
	}
	ending := func(what string, life, left time.Duration) []validity {
		return []validity{{what, noon.Add(left - life), noon.Add(left)}}
	}
	for name, test := range map[string]struct {
		change func(*observed)
		level  level
		check  string
		says   string
	}{
		"clock of global": {func(o *observed) { o.global.Time = noon.Add(time.Minute) }, problemLevel, "clock", "59s ahead of this machine's"},
		"clock of a zone": {func(o *observed) { up(o, func(u *zoneCheckUp) { u.Began = noon.Add(-time.Minute) }) }, problemLevel, "clock", "1m0s behind global's"},
		"a slow answer": {func(o *observed) {
			ups := o.checkUps["west"]
			ups.Answered = noon.Add(9 * time.Second)
			o.checkUps["west"] = ups
		}, "", "", ""},
		"server certificate": {func(o *observed) { o.global.Certificates = ending("server certificate", 1000*time.Hour, time.Hour) }, warningLevel, "certificate", "ends on 2026-01-01 13:00:00Z, in 1h0m0s"},
		"root near its end": {func(o *observed) {
			o.global.Certificates = ending("root of mesh default", 87600*time.Hour, 2000*time.Hour)
		}, warningLevel, "certificate", "root of mesh default ends"},
		"a removed zone": {func(o *observed) {
			o.global.Roots = rotations(`[{"mesh":"default","phase":"none","removedZones":["north"]}]`)
		}, warningLevel, "root", "zones that were deleted: north"},
		"a rotation that waits": {func(o *observed) {
			o.global.Roots = rotations(`[{"mesh":"default","phase":"trust","waiting":[{"zone":"west","reason":"it is not connected"}]}]`)
		}, warningLevel, "root", "waits for zone west: it is not connected"},
		"a root that can't be used": {func(o *observed) {
			o.global.Roots = rotations(`[{"mesh":"default","backend":"own","phase":"none","problem":"no secret"}]`)
		}, problemLevel, "root", "backend own can't be used: no secret"},
		"short-lived":     {func(o *observed) { o.global.Certificates = ending("server certificate", 2*time.Hour, time.Hour) }, "", "", ""},
		"root that ended": {func(o *observed) { o.global.Certificates = ending("root of mesh default", time.Hour, -time.Hour) }, problemLevel, "certificate", "root of mesh default ended"},
		"intermediate": {func(o *observed) {
			up(o, func(u *zoneCheckUp) {
				u.Certificates = ending("intermediate of mesh default", 720*time.Hour, time.Hour)
			})
		}, warningLevel, "certificate", "intermediate of mesh default ends"},
		"no room":       {func(o *observed) { o.global.Store.DiskFree = 1 << 20 }, problemLevel, "disk", "1 MiB left"},
		"little room":   {func(o *observed) { up(o, func(u *zoneCheckUp) { u.DiskFree = 500 << 20 }) }, warningLevel, "disk", "500 MiB left"},
		"damaged state": {func(o *observed) { up(o, func(u *zoneCheckUp) { u.Recovered = "corrupt" }) }, warningLevel, "disk", "came again from global"},
		"etcd away": {func(o *observed) {
			o.global.Store.Members = etcds(`[{"endpoint":"http://a:2379"},{"endpoint":"http://b:2379","error":"refused"}]`)
		}, problemLevel, "store", "does not answer: refused"},
		"etcd full":       {func(o *observed) { o.global.Store.Members = etcds(`[{"size":900,"quota":1000}]`) }, warningLevel, "store", "of its quota"},
		"alarm":           {func(o *observed) { o.global.Store.Alarms = []string{"NOSPACE"} }, problemLevel, "store", "NOSPACE"},
		"unreadable":      {func(o *observed) { o.global.Unreadable = 2 }, warningLevel, "version", "can't read 2 resources"},
		"mismatches":      {func(o *observed) { o.global.Mismatches = 1 }, warningLevel, "digest", "differed from etcd 1 time"},
		"no backup":       {func(o *observed) { o.global.LastBackup = time.Time{} }, warningLevel, "backup", "no backup"},
		"old backup":      {func(o *observed) { o.global.LastBackup = noon.Add(-48 * time.Hour) }, warningLevel, "backup", "of 2025-12-30"},
		"a zone away":     {func(o *observed) { o.zones[0].Connected = false }, problemLevel, "connection", "not connected"},
		"a zone disabled": {func(o *observed) { o.zones[0].Connected, o.zones[0].Enabled = false, false }, "", "", ""},
		"another digest":  {func(o *observed) { o.zones[0].InSync = false }, problemLevel, "digest", "not what global means"},
		"behind":          {func(o *observed) { o.zones[0].InSync, o.zones[0].Revision = false, 3 }, problemLevel, "digest", "at revision 3, and global at 7"},
		"can't take it":   {func(o *observed) { o.zones[0].InSync, o.zones[0].Problem = false, "disk is full" }, problemLevel, "digest", "disk is full"},
		"repaired":        {func(o *observed) { o.zones[0].Repairs = 2 }, warningLevel, "digest", "repaired 2 times"},
		"a proxy that refuses": {func(o *observed) {
			o.zones[0].Nacks = []nack{{Proxy: "web-1", TypeURL: "a/b.Cluster", Error: "bad port"}}
		}, problemLevel, "refusal", "proxy web-1 refuses Cluster: bad port"},
		"a policy refused": {func(o *observed) { o.zones[0].Rejected = []rejection{{"Timeout", "default", "x", "no"}} }, problemLevel, "refusal", "Timeout"},
		"a proxy behind":   {func(o *observed) { o.zones[0].Acked = 1 }, warningLevel, "digest", "1 of its proxies, of which it has 2"},
		"no ingress":       {func(o *observed) { must(t, json.Unmarshal([]byte(`{"services":[{"service":"web"}]}`), &o.zones[0])) }, warningLevel, "ingress", "has no ingress"},
		"unreachable": {func(o *observed) {
			up(o, func(u *zoneCheckUp) {
				must(t, json.Unmarshal([]byte(`{"ingresses":[{"zone":"east","address":"10.0.0.1:1","error":"refused"}]}`), u))
			})
		}, problemLevel, "ingress", "10.0.0.1:1 of zone east: refused"},
		"a replica that is silent": {func(o *observed) {
			ups := o.checkUps["west"]
			ups.Silent = []string{"west-b"}
			o.checkUps["west"] = ups
		}, problemLevel, "connection", "its replica west-b is connected and did not answer"},
		"a replica without room": {func(o *observed) {
			ups := o.checkUps["west"]
			ups.CheckUps = append(ups.CheckUps, ups.CheckUps[0])
			ups.CheckUps[1].Replica, ups.CheckUps[1].DiskFree = "west-b", 1
			o.checkUps["west"] = ups
		}, problemLevel, "disk", "has 0 MiB left"},
		"replicas that lost each other": {func(o *observed) {
			up(o, func(u *zoneCheckUp) { u.Parted = []string{"west-b"} })
		}, problemLevel, "replicas", "it has lost replica west-b, which may live"},
		"a replica of global without its store": {func(o *observed) { o.replicas = []globalReplica{{Name: "g1"}, {Name: "g2", Away: true}} }, problemLevel, "store", "cut off from its store"},
		"no intermediate": {func(o *observed) {
			up(o, func(u *zoneCheckUp) {
				must(t, json.Unmarshal([]byte(`{"identities":[{"mesh":"default","problem":"no answer"}]}`), u))
			})
		}, problemLevel, "certificate", "no answer"},
		"identities that ended": {func(o *observed) {
			up(o, func(u *zoneCheckUp) {
				must(t, json.Unmarshal([]byte(`{"identities":[{"mesh":"default","ends":"2026-01-01T11:00:00Z"}]}`), u))
			})
		}, problemLevel, "certificate", "were not renewed"},
		"a minor version":    {func(o *observed) { up(o, func(u *zoneCheckUp) { u.Version = "1.3.9" }) }, warningLevel, "version", "runs version 1.3.9"},
		"two minor versions": {func(o *observed) { up(o, func(u *zoneCheckUp) { u.Version = "v1.2.0-5-gabc" }) }, problemLevel, "version", "may be one apart"},
		"an old launcher": {func(o *observed) {
			up(o, func(u *zoneCheckUp) { u.Launchers = map[string]int{"1.4.0": 1, "1.3.0": 1} })
		}, warningLevel, "version", "1 launcher of zone west"},
		"several Envoys": {func(o *observed) {
			up(o, func(u *zoneCheckUp) { u.Envoys = map[string]int{"1.40.0": 1, "1.39.0": 1} })
		}, warningLevel, "version", "1 of 1.39.0, 1 of 1.40.0"},
		"an old zone": {func(o *observed) { o.failed["west"] = "doesn't know the query" }, warningLevel, "connection", "not checked further"},
	} {
		o := well()
		test.change(&o)
		all := judge(o, 24*time.Hour)
		if test.level == "" {
			if len(all) != 0 {
				t.Errorf("%s: %+v", name, all)
			}
			continue
		}
		if len(all) != 1 || all[0].Level != test.level || all[0].Check != test.check || !strings.Contains(all[0].Message+all[0].Mend+all[0].Subject+"\n"+fmt.Sprint(all), test.says) || all[0].Mend == "" || all[0].Subject == "" {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func etcds(text string) (out []struct {
	Endpoint string `json:"endpoint"`
	Version  string `json:"version"`
	Size     int64  `json:"size"`
	Quota    int64  `json:"quota"`
	Error    string `json:"error"`
}) {
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	return out
}

func TestDoctorExitsByWhatItFinds(t *testing.T) {
	f := newFake(t)
	now := time.Now().UTC()
	health := func(backup time.Time) string {
		return fmt.Sprintf(`{"version":"1.0","time":"NOW","lastBackup":%q,"certificates":[],"store":{"members":[{"version":"3.6.0"}],"diskFree":99999999999}}`,
			backup.Format(time.RFC3339))
	}
	f.health, f.zones = health(now), `{"items":[{"zone":"east","connected":true,"enabled":true,"inSync":true,"nacks":[],"rejected":[]}]}`
	f.checkUps = map[string]string{"east": `{"asked":"NOW","answered":"NOW","checkUp":{"version":"1.0","began":"NOW","ended":"NOW","diskFree":99999999999}}`}
	if code, out, errs := run(t, "", "doctor"); code != 0 || out != "0 problems, 0 warnings\n" || errs != "" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	f.health = health(now.Add(-30 * 24 * time.Hour))
	if code, out, _ := run(t, "", "doctor"); code != 0 || !strings.Contains(out, "warning: backup: global: the last backup is of") || !strings.Contains(out, "\n    `zoneforge backup --out FILE`\n") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out, _ := run(t, "", "doctor", "--backup-age", "0s"); code != 0 || !strings.Contains(out, "0 warnings") {
		t.Errorf("exit %d: %s", code, out)
	}
	f.zones = `{"items":[{"zone":"east","connected":true,"enabled":true,"inSync":true,"nacks":[{"proxy":"a\u001b[2J","typeUrl":"x","error":"no"}],"rejected":[]}]}`
	if code, out, _ := run(t, "", "doctor"); code != ExitRefused || !strings.HasPrefix(out, "problem: refusal: zone east: proxy a [2J refuses its configuration: no\n") {
		t.Errorf("exit %d: %q", code, out)
	}
	code, out, _ := run(t, "", "doctor", "-o", "json")
	var parsed struct{ Findings []finding }
	if err := json.Unmarshal([]byte(out), &parsed); err != nil || code != ExitRefused || len(parsed.Findings) != 2 || parsed.Findings[0].Check != "refusal" || parsed.Findings[0].Mend == "" {
		t.Errorf("exit %d: %s, %v", code, out, err)
	}
	f.server.Close()
	if code, out, _ := run(t, "", "doctor"); code != ExitRefused || !strings.Contains(out, "refuses the connection") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func rotations(text string) (out []rotation) {
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		panic(err)
	}
	return out
}

// What is missing of a list is said beside it, and replicas of global are listed as the one knows them that is asked.
func TestSilentReplicasAreTold(t *testing.T) {
	f := newFake(t)
	f.zones = `{"items":[{"zone":"east","connected":true,"enabled":true,"inSync":true}]}`
	f.proxies["east"] = `{"items":[{"kind":"Dataplane","mesh":"default","name":"web-1","acked":true}],"silent":["east-b"]}`
	code, out, errs := run(t, "", "get", "dataplanes")
	if code != 0 || !strings.Contains(out, "web-1") || errs != "zoneforge: zone east: its replica east-b did not answer; its proxies are missing\n" {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	f.replicas = `{"items":[{"name":"g1","address":"10.0.0.1:5686","self":true,"away":false,"zones":["east","west"]},{"name":"g2","away":true,"zones":[]}]}`
	code, out, errs = run(t, "", "get", "replicas")
	if code != 0 || errs != "" || !strings.Contains(out, "east,west") || !strings.Contains(out, "cut off from the store") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if code, out, _ = run(t, "", "get", "replicas", "-o", "json"); code != 0 || !strings.Contains(out, `"g2"`) {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, _, errs = run(t, "", "get", "replicas", "g1"); code != ExitUsage || !strings.Contains(errs, "inspect zone") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
