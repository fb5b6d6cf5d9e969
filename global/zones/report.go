package zones

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

const (
	// MaxOffers bounds the records that one zone offers. Together they also travel in one frame of stream.MaxFrame.
	MaxOffers = 50_000
	// maxOffer bounds one of them in bytes, below what the store takes.
	maxOffer = 256 << 10
)

var (
	serviceName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$`)
	meshName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// reportAgain is how long a report waits for the store that did not take it.
const reportAgain = time.Second

// Report commits what the zone offers, in one change without a history entry. Records that it may not offer are rejected and
// hold up nothing else. While the store takes nothing it tries again: the zone keeps its stream, and is told when it is committed.
func (s *session) Report(ctx context.Context, rep *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	for told := false; ; told = true {
		rejected, err := s.commit(ctx, rep)
		if err == nil || errors.Is(err, store.ErrSuperseded) || ctx.Err() != nil {
			return rejected, err
		}
		if !told {
			s.r.cfg.Logger.Warn("what a zone offers waits for the store", zap.String("zone", s.zone), zap.String("replica", s.rep.name), zap.Error(err))
		}
		again := time.NewTimer(reportAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, err
		}
	}
}

// commit tries once. A stream that another one of the same replica has followed gets an error that wraps store.ErrSuperseded.
func (s *session) commit(ctx context.Context, rep *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	select {
	case s.z.turn <- struct{}{}:
		defer func() { <-s.z.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Claimed before the state is looked at, so that nothing that a former stream wrote is missed.
	if s.claim == (store.Claim{}) {
		claim, err := s.r.cfg.Store.Claim(ctx, claimOf(s.zone, s.rep.name))
		if err != nil {
			return nil, err
		}
		s.claim = claim
	}
	good, rejected := s.read(rep)
	for {
		keys, snap := s.r.cfg.Views.Offers(s.zone)
		keys = ofReplica(keys, s.rep.name)
		ops, surplus := s.plan(rep, good, keys, snap)
		if len(ops) == 0 {
			return s.told(append(rejected, surplus...)), nil
		}
		revision, err := s.r.commits.commit(ctx, s.zone, s.claim, ops)
		switch {
		case err == nil:
			// The next report is compared with what this one wrote.
			if _, err := s.r.cfg.Store.Wait(ctx, revision); err != nil {
				return nil, err
			}
			return s.told(append(rejected, surplus...)), nil
		case errors.Is(err, store.ErrConflict):
			if err := newer(ctx, snap); err != nil {
				return nil, err
			}
		case errors.Is(err, store.ErrInvalid):
			for _, key := range slices.SortedFunc(maps.Keys(good), resource.Key.Compare) {
				rejected = append(rejected, reject(key, err.Error()))
			}
			return s.told(rejected), nil
		default:
			return nil, err
		}
	}
}

// told logs what is rejected; the zone logs it too.
func (s *session) told(rejected []*kdsv1.Rejection) []*kdsv1.Rejection {
	for _, r := range bound(rejected, 10) {
		s.r.cfg.Logger.Warn("zone may not offer a record", zap.String("zone", s.zone), zap.String("replica", s.rep.name),
			zap.String("kind", r.GetKey().GetKind()), zap.String("mesh", r.GetKey().GetMesh()), zap.String("name", r.GetKey().GetName()),
			zap.String("reason", r.GetReason()))
	}
	return bound(rejected, maxRejected)
}

func reject(key resource.Key, reason string) *kdsv1.Rejection {
	return &kdsv1.Rejection{Key: kds.KeyProto(key), Reason: text(reason)}
}

// offer is a record that the zone may offer, with its hash in the store.
type offer struct {
	resource *resource.Resource
	hash     resource.Hash
}

// read takes the good records out of a report.
func (s *session) read(rep *kdsv1.Report) (good map[resource.Key]offer, rejected []*kdsv1.Rejection) {
	good = make(map[resource.Key]offer, len(rep.GetUpserts()))
	for _, u := range rep.GetUpserts() {
		key, err := kds.KeyFrom(u.GetKey())
		var o offer
		if err == nil {
			o, err = s.check(key, u.GetPayload())
		}
		if err != nil {
			r := reject(key, err.Error())
			r.Hash = u.GetHash()
			rejected = append(rejected, r)
			continue
		}
		good[key] = o
	}
	for _, k := range rep.GetDeletes() {
		key, err := kds.KeyFrom(k)
		if err == nil {
			err = s.owns(key)
		}
		if err != nil {
			rejected = append(rejected, reject(key, err.Error()))
		}
	}
	return good, rejected
}

// owns says why a key is not one that the zone writes.
func (s *session) owns(key resource.Key) error {
	switch {
	case key.Kind != "ZoneIngress" && key.Kind != "ServiceAvailability":
		return fmt.Errorf("zones report no %s", key.Kind)
	case (key.Kind == "ZoneIngress") != (key.Mesh == ""):
		return errors.New("a ZoneIngress has no mesh and a ServiceAvailability has one")
	case key.Mesh != "" && !meshName.MatchString(key.Mesh):
		return fmt.Errorf("%q is no name for a mesh", key.Mesh)
	case !strings.HasPrefix(key.Name, s.zone+"."):
		return fmt.Errorf("zone %s reports only names that begin with %q", s.zone, s.zone+".")
	}
	if _, replica := kds.SplitOfferName(key.Name); replica != "" && replica != s.rep.name {
		return fmt.Errorf("replica %s of zone %s reports nothing for replica %q", s.rep.name, s.zone, replica)
	}
	return nil
}

// check reads a record and says why the zone may not offer it.
func (s *session) check(key resource.Key, payload []byte) (offer, error) {
	if err := s.owns(key); err != nil {
		return offer{}, err
	}
	r, err := resource.Unmarshal(key, payload)
	if err != nil {
		return offer{}, err
	}
	switch spec := r.Spec.(type) {
	case *meshv1.ZoneIngress:
		if spec.GetZone() != s.zone {
			return offer{}, fmt.Errorf("its zone is %q, the reporting one is %s", spec.GetZone(), s.zone)
		}
		shared := &resource.Resource{Key: key, Spec: r.Spec}
		shared.Name, _ = kds.SplitOfferName(key.Name)
		if v := resource.Validate(shared); len(v) > 0 {
			return offer{}, fmt.Errorf("%s: %s", v[0].Path, v[0].Message)
		}
	case *federationv1.ServiceAvailability:
		if err := s.available(key, spec); err != nil {
			return offer{}, err
		}
	}
	b, err := resource.Marshal(r)
	if err != nil {
		return offer{}, err
	}
	if len(b) > maxOffer {
		return offer{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(b), maxOffer)
	}
	return offer{r, resource.HashOf(key, b)}, nil
}

func (s *session) available(key resource.Key, a *federationv1.ServiceAvailability) error {
	shared, _ := kds.SplitOfferName(key.Name)
	switch {
	case a.GetZone() != s.zone:
		return fmt.Errorf("its zone is %q, the reporting one is %s", a.GetZone(), s.zone)
	case !serviceName.MatchString(a.GetService()):
		return fmt.Errorf("%.300q is no name for a service", a.GetService())
	case shared != s.zone+"."+a.GetService():
		return fmt.Errorf("its name must be %s.%s", s.zone, a.GetService())
	}
	for _, t := range a.GetTagSets() {
		if v, ok := t.GetTags()[resource.TagService]; ok && v != a.GetService() {
			return fmt.Errorf("its tag %s is %q", resource.TagService, v)
		}
		if v, ok := t.GetTags()[resource.TagZone]; ok && v != s.zone {
			return fmt.Errorf("its tag %s is %q, the reporting zone is %s", resource.TagZone, v, s.zone)
		}
	}
	return nil
}

// plan gives the operations that turn the stored offers, whose keys are given, into the reported ones. A record that was rejected
// leaves the last good one in force.
func (s *session) plan(rep *kdsv1.Report, good map[resource.Key]offer, stored []resource.Key, snap *store.Snapshot) (ops []store.Op, surplus []*kdsv1.Rejection) {
	gone := map[resource.Key]bool{}
	if rep.GetSnapshot() {
		for _, key := range stored {
			gone[key] = true
		}
		for _, u := range rep.GetUpserts() {
			if key, err := kds.KeyFrom(u.GetKey()); err == nil {
				delete(gone, key)
			}
		}
	}
	for _, k := range rep.GetDeletes() {
		if key, err := kds.KeyFrom(k); err == nil && s.owns(key) == nil {
			gone[key] = true
		}
	}
	count := len(stored)
	for _, key := range slices.SortedFunc(maps.Keys(gone), resource.Key.Compare) {
		if e, ok := snap.Get(key); ok {
			ops = append(ops, store.Op{Key: key, Delete: true, IfRevision: &e.Revision})
			count--
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(good), resource.Key.Compare) {
		o := good[key]
		e, exists := snap.Get(key)
		if gone[key] || exists && e.Hash == o.hash {
			continue
		}
		if !exists {
			if count++; count > MaxOffers {
				r := reject(key, fmt.Sprintf("a zone offers at most %d records", MaxOffers))
				r.Hash = o.hash[:]
				surplus = append(surplus, r)
				continue
			}
		}
		ops = append(ops, store.Op{Key: key, Put: o.resource, IfRevision: &e.Revision})
	}
	return ops, surplus
}
