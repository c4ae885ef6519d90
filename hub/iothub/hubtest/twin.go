package hubtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// twin is what the cloud wants of an identity and what it says of itself.
type twin struct {
	Tags     map[string]any `json:"tags,omitempty"`
	Desired  part           `json:"desired"`
	Reported part           `json:"reported"`
	Version  int            `json:"version"` // counts all changes, from 1
}

// part is one side of a twin.
type part struct {
	Props   map[string]any `json:"props,omitempty"`
	Version int            `json:"version"` // counts changes, from 1
	Updated time.Time      `json:"updated"`
}

func newTwin() twin {
	var t twin
	t.complete()
	return t
}

// complete gives a twin that was made or read its versions and maps.
func (t *twin) complete() {
	for _, m := range []*map[string]any{&t.Tags, &t.Desired.Props, &t.Reported.Props} {
		if *m == nil {
			*m = map[string]any{}
		}
	}
	for _, v := range []*int{&t.Version, &t.Desired.Version, &t.Reported.Version} {
		*v = max(*v, 1)
	}
}

// view is the part as it goes on the wire: its properties and "$version".
func (p *part) view() map[string]any {
	m := maps.Clone(p.Props)
	m["$version"] = p.Version
	return m
}

// metadata is view with "$metadata", as services see it.
func (p *part) metadata() map[string]any {
	m := p.view()
	m["$metadata"] = map[string]any{"$lastUpdated": p.Updated.UTC().Format(time.RFC3339Nano)}
	return m
}

func (p *part) merge(patch map[string]any) {
	p.Props = merge(p.Props, patch)
	p.Version++
	p.Updated = time.Now()
}

// merge is the JSON merge patch of RFC 7386: null takes a member away. Neither
// argument is changed: views of the older state may be under way.
func merge(into, patch map[string]any) map[string]any {
	out := maps.Clone(into)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = merge(old, v)
		default:
			out[k] = v
		}
	}
	return out
}

// Limits of IoT Hub on a patch.
const (
	maxTwinBytes = 32 << 10
	maxTwinDepth = 10
)

// parsePatch reads a patch and checks IoT Hub's limits.
func parsePatch(body []byte) (map[string]any, error) {
	if len(body) > maxTwinBytes {
		return nil, fmt.Errorf("patch has %d bytes, at most %d are allowed", len(body), maxTwinBytes)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // so that large integers come back as they went
	var patch map[string]any
	if err := d.Decode(&patch); err != nil {
		return nil, fmt.Errorf("patch is not a JSON object: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("patch is followed by something else")
	}
	if patch == nil {
		return nil, errors.New("patch is not a JSON object: null")
	}
	return patch, checkPatch(patch, 1)
}

func checkPatch(v any, depth int) error {
	if depth > maxTwinDepth+1 { // the outermost object does not count
		return fmt.Errorf("patch is more than %d levels deep", maxTwinDepth)
	}
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if err := checkKey(k); err != nil {
				return err
			}
			if err := checkPatch(x, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, x := range v {
			if x == nil {
				return errors.New("patch has null in an array")
			}
			if err := checkPatch(x, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkKey(k string) error {
	if len(k) == 0 || len(k) > 1024 {
		return fmt.Errorf("key has %d bytes, 1 to 1024 are allowed", len(k))
	}
	for _, r := range k {
		if r <= ' ' || r == '.' || r == '$' || r == '#' || r == 0x7f {
			return fmt.Errorf("key %q: character %q is not allowed", k, r)
		}
	}
	return nil
}
