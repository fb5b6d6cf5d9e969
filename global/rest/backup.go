package rest

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// partTimeout is how long a reader may take for the next part of a backup, which has partSize bytes.
const (
	partTimeout = time.Minute
	partSize    = 64 << 10
)

// download streams a backup, one at a time in a replica. Once it has begun, only the stream itself can say that it failed.
func (a *api) download(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "a backup holds everything, so only an admin may make one", "use a token with the role admin")
	}
	select {
	case a.backingUp <- struct{}{}:
		defer func() { <-a.backingUp }()
	default:
		return newProblem(http.StatusServiceUnavailable, "busy", "another backup is being made here", "wait until it is done, or ask another replica")
	}
	w.Header().Set("Content-Type", "application/vnd.zoneforge.backup")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(&patient{w, http.NewResponseController(w)}, partSize)
	err := a.Backup(r.Context(), out)
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	if err != nil {
		a.Logger.Warn("backup failed", zap.String("name", who.Name), zap.Error(err))
		panic(http.ErrAbortHandler) // so that no client takes it for whole
	}
	a.Logger.Info("backup made", zap.String("name", who.Name))
	return nil
}

// patient moves the deadline of the server along with what is read.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	// A writer without deadlines has none to move.
	_ = p.control.SetWriteDeadline(time.Now().Add(partTimeout))
	return p.ResponseWriter.Write(b)
}

// Backup writes everything that global would need to begin anew; package backup says how.
type Backup func(ctx context.Context, out io.Writer) error
