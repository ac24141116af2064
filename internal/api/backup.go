package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

const (
	backupType = "application/octet-stream"
	// A client that takes nothing for so long has gone, or should: the copy takes up disk meanwhile.
	backupStall = time.Minute
	backupChunk = 1 << 20
)

func registerBackup(a *API, h huma.API) {
	register(a, h, route{method: http.MethodPost, path: "/v1/backup", id: "makeBackup", tag: tagBackup, status: http.StatusOK, needs: adminOfBackups,
		summary: "Make a backup",
		description: "Everything that is stored, as it is at one moment, while writes go on; access keys' secrets stay sealed under the master key, " +
			"which is not in it. An answer shorter than its Content-Length is no backup. One is made at a time.",
		errors: []int{http.StatusConflict}}, (*API).makeBackup)
	h.OpenAPI().Paths["/v1/backup"].Post.Responses["200"] = &huma.Response{Description: "A backup, for `copse restore`.",
		Content: map[string]*huma.MediaType{backupType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
}

// makeBackup streams, since a backup is as large as the database. One is made at a time.
func (a *API) makeBackup(ctx context.Context, c access.Caller, _ *struct{}) (*huma.StreamResponse, error) {
	// need has asked already. This is the one operation whose answer holds everything, and there is no
	// service behind it that would ask.
	if !c.MayEverywhere(access.Admin) {
		return nil, &copse.Error{Kind: copse.Denied, Detail: adminOfBackups.admin}
	}
	if a.backup == nil {
		return nil, copse.Errorf(copse.InvalidState, "this server keeps everything in memory; there is nothing to back up")
	}
	// From here on the copy is on disk, and closing body is what removes it.
	body, size, err := a.backup(ctx)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", backupType)
		// The length is what tells a whole backup from one that broke off.
		hc.SetHeader("Content-Length", strconv.FormatInt(size, 10))
		hc.SetStatus(http.StatusOK)
		err := stream(hc.BodyWriter(), body)
		if closeErr := body.Close(); closeErr != nil {
			a.log.Error("removing the copy of a backup", "error", closeErr)
		}
		if err != nil {
			a.log.Warn("a backup did not reach its client", "error", err)
			// The connection breaks, so that nobody takes what came for a backup.
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

// stream copies, and gives each part the time that a whole answer has otherwise. The server's write
// deadline is for answers of ordinary size. A client that is slow, but takes something within each
// minute, gets all of it.
func stream(to io.Writer, from io.Reader) error {
	var deadline func(time.Time) error
	if w, ok := to.(http.ResponseWriter); ok {
		deadline = http.NewResponseController(w).SetWriteDeadline
	}
	for {
		// A writer without deadlines is a test's.
		if deadline != nil {
			if err := deadline(time.Now().Add(backupStall)); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(to, from, backupChunk); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
