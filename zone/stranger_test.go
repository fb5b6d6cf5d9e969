package zone

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/zone/admission"
)

// unread fails the test when anybody reads from it.
type unread struct {
	grpc.ServerStream
	t   *testing.T
	ctx context.Context
}

func (u unread) Context() context.Context { return u.ctx }

func (u unread) RecvMsg(any) error {
	u.t.Error("a stranger's request was read")
	return nil
}

// A request may have 16 MiB, so none is read before the token of its stream is known to be good.
func TestStrangersAreRefusedUnread(t *testing.T) {
	known := &keys{}
	known.current.Store(&federationv1.VerificationKeys{})
	admitted, err := admission.New(admission.Config{Zone: "east", Keys: known})
	if err != nil {
		t.Fatal(err)
	}
	c := &core{inbox: newInbox(), metrics: newMetrics(), admitted: admitted, log: zap.NewNop(), refusals: newRefusals()}
	for name, ctx := range map[string]context.Context{
		"no token":    t.Context(),
		"a bad token": metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer x.y.z")),
	} {
		err := c.stranger(nil, unread{t: t, ctx: ctx}, nil, func(any, grpc.ServerStream) error {
			t.Errorf("%s: let in", name)
			return nil
		})
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "token") || strings.Contains(err.Error(), "x.y.z") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
