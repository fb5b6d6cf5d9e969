package zone

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
)

const (
	// answerPart bounds one frame of an answer, and defaultAnswer a whole one that names no bound.
	answerPart    = 512 << 10
	defaultAnswer = 8 << 20
)

// dataplane is a proxy as it is shown.
type dataplane struct {
	Kind     string    `json:"kind"`
	Mesh     string    `json:"mesh,omitempty"`
	Name     string    `json:"name"`
	Services []string  `json:"services"`
	Address  string    `json:"address"`
	Since    time.Time `json:"since"`
	// Revision is the newest revision of global that the proxy has all of.
	Revision uint64 `json:"revision"`
	// Acked says that the proxy has everything that it should.
	Acked bool `json:"acked"`
	// Waiting says what the zone waits for before it configures the proxy; empty when for nothing.
	Waiting string   `json:"waiting,omitempty"`
	Nacks   []refuse `json:"nacks"`
}

type refuse struct {
	TypeURL string    `json:"typeUrl,omitempty"`
	Names   []string  `json:"names,omitempty"`
	Error   string    `json:"error"`
	Time    time.Time `json:"time"`
}

// description is a proxy with all that is known of it.
type description struct {
	dataplane
	Document json.RawMessage `json:"document,omitempty"`
	Policies []usedPolicy    `json:"policies"`
	Rejected []usedPolicy    `json:"rejected,omitempty"`
	Config   *config         `json:"config,omitempty"`
}

type usedPolicy struct {
	Kind string `json:"kind"`
	Mesh string `json:"mesh,omitempty"`
	Name string `json:"name"`
	// Revision is that of the zone's records; a zone doesn't know revisions of single resources.
	Revision uint64 `json:"revision"`
	Why      string `json:"why"`
}

// config is what a proxy should hold, as Envoy's JSON.
type config struct {
	Listeners  []json.RawMessage `json:"listeners"`
	Routes     []json.RawMessage `json:"routes"`
	Clusters   []json.RawMessage `json:"clusters"`
	Extensions []json.RawMessage `json:"extensions"`
	Endpoints  []json.RawMessage `json:"endpoints"`
	// Secrets are names and versions alone.
	Secrets []redacted `json:"secrets"`
}

type redacted struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Data    string `json:"data"`
}

// query answers a question of global.
func (c *core) query(q *kdsv1.Query) {
	if _, ok := q.GetQuery().(*kdsv1.Query_CheckUp_); ok {
		c.checkUp(q)
		return
	}
	body, err := c.ask(q)
	c.answer(q, body, err)
}

// answer may be called on any goroutine.
func (c *core) answer(q *kdsv1.Query, body []byte, err error) {
	if limit := int(q.GetMaxBytes()); err == nil && len(body) > max(limit, 0) && (limit > 0 || len(body) > defaultAnswer) {
		err = fmt.Errorf("the answer has %d bytes, more than was asked for; ask for one mesh or leave the config out", len(body))
	}
	if err != nil {
		c.report.answer([]*kdsv1.Answer{{Id: q.GetId(), Last: true, Error: err.Error()}})
		return
	}
	var parts []*kdsv1.Answer
	for part := range slices.Chunk(body, answerPart) {
		parts = append(parts, &kdsv1.Answer{Id: q.GetId(), Body: part})
	}
	parts[len(parts)-1].Last = true
	c.report.answer(parts)
}

func (c *core) ask(q *kdsv1.Query) ([]byte, error) {
	switch v := q.GetQuery().(type) {
	case *kdsv1.Query_ListDataplanes_:
		list := []dataplane{}
		for _, id := range slices.Sorted(maps.Keys(c.proxies)) {
			p := c.proxies[id]
			if mesh := v.ListDataplanes.GetMesh(); mesh == "" || mesh == p.mesh() {
				list = append(list, c.show(p))
			}
		}
		return json.Marshal(map[string]any{"items": list})
	case *kdsv1.Query_DescribeDataplane_:
		p := c.find(v.DescribeDataplane.GetMesh(), v.DescribeDataplane.GetName())
		if p == nil {
			return nil, fmt.Errorf("no such proxy: none called %q of mesh %q has a stream at this zone", v.DescribeDataplane.GetName(), v.DescribeDataplane.GetMesh())
		}
		d, err := c.describe(p, v.DescribeDataplane.GetConfig())
		if err != nil {
			return nil, err
		}
		return json.Marshal(d)
	}
	return nil, fmt.Errorf("this zone of version %q doesn't know the query", c.version)
}

func (c *core) show(p *proxy) dataplane {
	d := dataplane{Mesh: p.mesh(), Services: []string{}, Since: p.since.UTC(), Revision: c.onRevision(p), Acked: p.settled, Nacks: []refuse{}}
	if w := p.who; w != nil {
		d.Kind, d.Name = w.Kind, w.Name
		d.Services = append(d.Services, w.Services...)
		if w.ZoneIngress != nil {
			d.Address = fmt.Sprintf("%s:%d", w.ZoneIngress.GetNetworking().GetAddress(), w.ZoneIngress.GetNetworking().GetPort())
		} else {
			d.Address = w.Dataplane.GetNetworking().GetAddress()
		}
	}
	if p.waiting {
		d.Waiting = "certificates of mesh " + p.mesh()
	}
	if p.err != nil {
		d.Nacks = append(d.Nacks, refuse{Error: p.err.Error(), Time: p.errAt.at.UTC()})
	}
	for _, n := range p.progress.Nacks {
		d.Nacks = append(d.Nacks, refuse{TypeURL: n.TypeURL, Names: n.Names, Error: n.Message, Time: p.nackedAt[refusal(n)].at.UTC()})
	}
	return d
}

func (c *core) describe(p *proxy, withConfig bool) (*description, error) {
	d := &description{dataplane: c.show(p), Policies: []usedPolicy{}}
	if r := p.present(); r != nil {
		document, err := resource.EncodeJSON(r)
		if err != nil {
			return nil, err
		}
		d.Document = document
	}
	for _, u := range c.state.Uses(p.id) {
		d.Policies = append(d.Policies, usedPolicy{u.Key.Kind, u.Key.Mesh, u.Key.Name, c.revisions.taken, u.Why})
	}
	for _, r := range c.state.RejectedBy(p.id) {
		d.Rejected = append(d.Rejected, usedPolicy{r.Key.Kind, r.Key.Mesh, r.Key.Name, c.revisions.taken, r.Reason})
	}
	if !withConfig || p.built == nil {
		return d, nil
	}
	d.Config = &config{Endpoints: []json.RawMessage{}, Secrets: []redacted{}}
	var err error
	for typeURL, into := range map[string]*[]json.RawMessage{
		xds.TypeListener: &d.Config.Listeners, xds.TypeRoute: &d.Config.Routes, xds.TypeCluster: &d.Config.Clusters, xds.TypeExtension: &d.Config.Extensions,
	} {
		if *into, err = shown(p.built.Resources.Each(typeURL)); err != nil {
			return nil, err
		}
	}
	var endpoints []*xds.Resource
	for _, name := range c.state.Needs(p.id) {
		e, err := c.state.BuildEndpoints(name)
		if err != nil || e == nil {
			continue
		}
		r, err := xds.BuildEndpoints(e)
		if err != nil {
			continue
		}
		endpoints = append(endpoints, r)
	}
	if d.Config.Endpoints, err = shown(slices.Values(endpoints)); err != nil {
		return nil, err
	}
	for _, name := range p.built.Secrets {
		s := redacted{Name: name, Data: resource.Redacted}
		if have := c.secrets[secretKey{p.mesh(), name}]; have != nil {
			s.Version = have.resource.Version
		}
		d.Config.Secrets = append(d.Config.Secrets, s)
	}
	return d, nil
}

// shown are resources as Envoy's JSON, without what is sensitive in them; whole secrets must not be among them.
func shown(list iter.Seq[*xds.Resource]) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for r := range list {
		text, err := xds.Redacted(r)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

var _ server.Observer = (*door)(nil)
