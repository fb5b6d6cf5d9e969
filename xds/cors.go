package xds

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

func routeCORS(r *ir.Route) (validated, error) {
	c := r.Filters.CORS
	if c == nil {
		return nil, nil
	}
	out := &corsv3.CorsPolicy{
		AllowMethods:     strings.Join(c.Methods, ","),
		AllowHeaders:     strings.Join(c.Headers, ","),
		ExposeHeaders:    strings.Join(c.ExposeHeaders, ","),
		AllowCredentials: wrapperspb.Bool(c.Credentials),
	}
	var errs []error
	for _, o := range c.Origins {
		origin, err := text(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("cors: origin: %w", err))
			continue
		}
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, origin)
	}
	if c.MaxAge != nil {
		errs = append(errs, notNegative(namedDuration{"cors: max age", *c.MaxAge}))
		out.MaxAge = strconv.FormatInt(int64(*c.MaxAge/time.Second), 10)
	}
	return out, errors.Join(errs...)
}
