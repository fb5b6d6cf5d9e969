package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const (
	// settleTime is how long a zone may take to catch up before it counts as being behind, and settlePoll how often it is looked at.
	settleTime = 5 * time.Second
	settlePoll = 250 * time.Millisecond
)

// observed is what a doctor has seen.
type observed struct {
	// before and after are this machine's clock around what global said of its own.
	before, after time.Time
	global        globalHealth
	zones         []zoneStatus
	checkUps      map[string]zoneCheckUps
	// replicas are those of global that the one knows that was asked.
	replicas []globalReplica
	// failed says why a zone was not checked.
	failed map[string]string
}

// validity is the life of a certificate.
type validity struct {
	What      string    `json:"what"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// globalHealth is what a replica of global says of itself.
type globalHealth struct {
	Replica    string    `json:"replica"`
	Version    string    `json:"version"`
	Time       time.Time `json:"time"`
	Unreadable int64     `json:"unreadable"`
	Mismatches int64     `json:"mismatches"`
	Store      struct {
		Members []struct {
			Endpoint string `json:"endpoint"`
			Version  string `json:"version"`
			Size     int64  `json:"size"`
			Quota    int64  `json:"quota"`
			Error    string `json:"error"`
		} `json:"members"`
		Alarms   []string `json:"alarms"`
		DiskFree int64    `json:"diskFree"`
	} `json:"store"`
	LastBackup   time.Time  `json:"lastBackup"`
	Roots        []rotation `json:"roots"`
	Certificates []validity `json:"certificates"`
}

// zoneCheckUps are what the replicas of a zone say of themselves, between two times by global's clock.
type zoneCheckUps struct {
	Asked    time.Time `json:"asked"`
	Answered time.Time `json:"answered"`
	// CheckUp is all that a global tells that asks one replica only.
	CheckUp  *zoneCheckUp  `json:"checkUp"`
	CheckUps []zoneCheckUp `json:"checkUps"`
	// Silent are the replicas that did not answer.
	Silent []string `json:"silent"`
}

func (u zoneCheckUps) all() []zoneCheckUp {
	if len(u.CheckUps) == 0 && u.CheckUp != nil {
		return []zoneCheckUp{*u.CheckUp}
	}
	return u.CheckUps
}

// zoneCheckUp is what one says.
type zoneCheckUp struct {
	Replica      string     `json:"replica"`
	Version      string     `json:"version"`
	Began        time.Time  `json:"began"`
	Ended        time.Time  `json:"ended"`
	DiskFree     int64      `json:"diskFree"`
	Recovered    string     `json:"recovered"`
	Certificates []validity `json:"certificates"`
	Identities   []struct {
		Mesh    string    `json:"mesh"`
		Waiting int       `json:"waiting"`
		Ends    time.Time `json:"ends"`
		Problem string    `json:"problem"`
	} `json:"identities"`
	Envoys    map[string]int `json:"envoys"`
	Launchers map[string]int `json:"launchers"`
	Ingresses []struct {
		Zone    string `json:"zone"`
		Address string `json:"address"`
		Error   string `json:"error"`
	} `json:"ingresses"`
	// Parted are other replicas of the zone that it has lost, and that may live.
	Parted []string `json:"parted"`
}

func newDoctor(streams Streams) *cobra.Command {
	var age time.Duration
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong in the federation, and say what to do", Args: cobra.NoArgs,
		Long: "Look for what is wrong in the federation, and say what to do: connections, digests and refusals of zones and proxies, clocks, ends of\n" +
			"certificates, versions, etcd, disks, ingresses that other zones can't reach, and the age of the last backup. Exits 1 when there is a\n" +
			"problem; a warning is one that is to come, or may be meant.",
	}
	cmd.Flags().DurationVar(&age, "backup-age", 7*24*time.Hour, "how old the last backup may be; 0s for no matter")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if age < 0 {
			return usagef("--backup-age must not be negative")
		}
		findings := []finding{}
		if o, err := c.observe(ctx); err != nil {
			findings = append(findings, finding{problemLevel, "connection", "global", err.Error(), "mend that first, as everything else is asked of global"})
		} else {
			findings = append(findings, judge(o, age)...)
		}
		if err := printFindings(streams, *output, findings); err != nil {
			return err
		}
		for _, f := range findings {
			if f.Level == problemLevel {
				return errReported
			}
		}
		return nil
	})
}

func printFindings(streams Streams, f format, findings []finding) error {
	if f != asTable {
		return printValue(streams.Out, f, map[string]any{"findings": findings})
	}
	problems, warnings := 0, 0
	for _, one := range findings {
		if one.Level == problemLevel {
			problems++
		} else {
			warnings++
		}
		// What zones and proxies say must not move the cursor.
		line := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, fmt.Sprintf("%s: %s: %s: %s", one.Level, one.Check, one.Subject, one.Message))
		if _, err := fmt.Fprintf(streams.Out, "%s\n    %s\n", line, one.Mend); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(streams.Out, "%s, %s\n", count(problems, "problem"), count(warnings, "warning"))
	return err
}

// observe asks global, and by it all zones that are connected.
func (c *client) observe(ctx context.Context) (observed, error) {
	o := observed{checkUps: map[string]zoneCheckUps{}, failed: map[string]string{}}
	o.before = time.Now()
	if err := c.get(ctx, "/v1/status/global", &o.global); err != nil {
		return o, err
	}
	o.after = time.Now()
	var err error
	if o.replicas, err = c.globalReplicas(ctx); err != nil {
		return o, err
	}
	if o.zones, err = c.settledZones(ctx); err != nil {
		return o, err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	turn := make(chan struct{}, askAtOnce)
	for _, z := range o.zones {
		if !z.Connected || !z.Enabled {
			continue
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			var up zoneCheckUps
			err := c.do(ctx, http.MethodGet, path("v1", "zones", z.Zone, "check-up"), nil, &up)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				o.failed[z.Zone] = err.Error()
				return
			}
			o.checkUps[z.Zone] = up
		})
	}
	wg.Wait()
	return o, ctx.Err()
}

// settledZones gives zones time to take what was just changed.
func (c *client) settledZones(ctx context.Context) ([]zoneStatus, error) {
	began := time.Now()
	for {
		var list struct{ Items []zoneStatus }
		if err := c.get(ctx, "/v1/status/zones", &list); err != nil {
			return nil, err
		}
		moving := false
		for _, z := range list.Items {
			moving = moving || z.Connected && z.Enabled && z.Problem == "" && (!z.InSync || z.Acked < z.Proxies && len(z.Nacks) == 0)
		}
		if !moving || time.Since(began) > settleTime {
			return list.Items, nil
		}
		pause := time.NewTimer(settlePoll)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		}
	}
}
