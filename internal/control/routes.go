package control

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/sys/unix"
)

// route is a request of the protocol.
type route struct {
	pattern    string // as in http.ServeMux
	answer     http.HandlerFunc
	hasBody    bool
	parameters []string
}

// routes lists all requests of the protocol.
func (s *Server) routes() []route {
	return append(s.storeRoutes(),
		route{"POST /v1/devices", s.add, true, nil},
		route{"GET /v1/devices", s.list, false, nil},
		route{"GET /v1/devices/{id}", s.get, false, nil},
		route{"DELETE /v1/devices/{id}", s.remove, false, []string{"force", "diskseq"}},
		route{"POST /v1/devices/{id}/keep", s.keep, false, []string{"for", "diskseq"}},
		route{"POST /v1/devices/{id}/resize", s.resize, false, []string{"size", "diskseq"}},
		route{"POST /v1/devices/{id}/reload", s.reload, true, []string{"diskseq"}},
		route{"POST /v1/devices/{id}/clear", s.clear, false, []string{"diskseq"}},
		route{"PUT /v1/devices/{id}/key", s.giveKey, false, []string{"diskseq"}},
		route{"GET /v1/server", s.status, false, nil},
		route{"POST /v1/upgrade", s.upgrade, false, nil},
		route{"GET /metrics", s.metrics, false, nil},
	)
}

// storeRoutes lists the requests that the process of a single device answers.
func (s *Server) storeRoutes() []route {
	return []route{
		{"POST /v1/devices/{id}/merge", s.merge, false, []string{"diskseq"}},
		{"POST /v1/devices/{id}/fork", s.fork, false, []string{"store", "other", "descriptors", "diskseq"}},
		{"GET /v1/stats", s.stats, false, nil},
	}
}

// muxOf answers requests. It refuses what a request cannot have, because its author expects an effect.
func (s *Server) muxOf(routes []route) *http.ServeMux {
	mux := http.NewServeMux()
	for _, each := range routes {
		mux.HandleFunc(each.pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := each.check(r); err != nil {
				answerBeforeBody(w)
				s.fail(w, http.StatusBadRequest, err)
				return
			}
			each.answer(w, r)
		})
	}
	return mux
}

// check returns an error that wraps EINVAL for a body that the request does not have, and for
// parameters that are unknown, malformed or there twice.
func (each *route) check(r *http.Request) error {
	if r.ContentLength != 0 && !each.hasBody {
		return fmt.Errorf("%s %s: it has no body: %w", r.Method, r.URL.Path, unix.EINVAL)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("parameters %q: %w: %w", r.URL.RawQuery, err, unix.EINVAL)
	}
	for name, values := range query {
		if !slices.Contains(each.parameters, name) {
			return fmt.Errorf("parameter %q: unknown: %w", name, unix.EINVAL)
		}
		if len(values) > 1 {
			return fmt.Errorf("parameter %q: there twice: %w", name, unix.EINVAL)
		}
	}
	return nil
}
