package hubtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"holdfast.dev/holdfast/hub/wire"
)

// rest is everything behind the HTTPS listener. Versions are not looked at.
func (h *Hub) rest() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+webSocketPath, h.openWebSocket)
	mux.Handle("/sim/", h.controls())
	h.registryRoutes(mux)
	h.twinRoutes(mux)
	h.scopeRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &problem{http.StatusNotFound, "NotFound", "no such call: " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// maxRequest bounds a request's body: a bulk call of a hundred devices is far below.
const maxRequest = 1 << 20

// problem is an error with what IoT Hub's clients tell errors apart by.
type problem struct {
	status int
	code   string
	text   string
}

func (p *problem) Error() string { return p.code + ": " + p.text }

func notFound(id string) error {
	code, kind := "DeviceNotFound", "device"
	if _, module := wire.SplitID(id); module != "" {
		code, kind = "ModuleNotFound", "module"
	}
	return &problem{http.StatusNotFound, code, kind + " " + id + " is not registered"}
}

func badRequest(format string, args ...any) error {
	return &problem{http.StatusBadRequest, "ArgumentInvalid", fmt.Sprintf(format, args...)}
}

// fail answers with an error in the form that azure-iothub takes apart.
func fail(w http.ResponseWriter, err error) {
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{http.StatusInternalServerError, "ServerError", err.Error()}
	}
	answer(w, p.status, map[string]string{
		"Message":          "ErrorCode:" + p.code + ";" + p.text,
		"ExceptionMessage": "Tracking ID:" + digits(12),
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // only a payload that is no JSON, from a device
		status, text = http.StatusBadGateway, []byte(`{"Message":"ErrorCode:InvalidResponse;not JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(text) // who does not read it does not want it
}

// call is one REST call: what it gives is answered as JSON with status 200, and
// with 204 if it is nil.
type restCall func(r *http.Request) (any, error)

// service makes a handler of f for holders of the service policy.
func (h *Hub) service(f restCall) http.HandlerFunc {
	return respond(func(r *http.Request) (any, error) {
		if err := h.checkPolicy(r.Header.Get("Authorization")); err != nil {
			return nil, &problem{http.StatusUnauthorized, "IotHubUnauthorizedAccess", err.Error()}
		}
		return f(r)
	})
}

func respond(f restCall) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		body, err := f(r)
		switch {
		case err != nil:
			fail(w, err)
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			if e, ok := body.(tagged); ok {
				w.Header().Set("ETag", `"`+e.etag()+`"`)
			}
			answer(w, http.StatusOK, body)
		}
	}
}

// tagged is an answer with an ETag header.
type tagged interface{ etag() string }

// read decodes a request's body; an empty one leaves into as it is.
func read(r *http.Request, into any) error {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest("read body: %v", err)
	}
	if len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return badRequest("body is not what this call takes: %v", err)
	}
	return nil
}

// target is the identity that a request's path names.
func target(r *http.Request) (string, error) {
	id := wire.JoinID(r.PathValue("device"), r.PathValue("module"))
	if err := checkID(id); err != nil {
		return "", badRequest("%v", err)
	}
	return id, nil
}

// match checks an If-Match header against the etag that is there; "" is no header.
func match(header, etag string) error {
	if want := strings.Trim(header, `"`); want != "" && want != "*" && want != etag {
		return &problem{http.StatusPreconditionFailed, "PreconditionFailed", "etag is " + etag + ", If-Match says " + want}
	}
	return nil
}
