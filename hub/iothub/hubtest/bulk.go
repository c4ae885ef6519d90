package hubtest

import (
	"errors"
	"net/http"

	"holdfast.dev/holdfast/hub/wire"
)

// maxBulk is how many devices one bulk call takes, as in IoT Hub.
const maxBulk = 100

// order is one device of a bulk call.
type order struct {
	identity
	ID   string `json:"id"` // the device's id; deviceId is not used here
	Mode string `json:"importMode"`
	Tag  string `json:"eTag"`
}

// outcome is what a bulk call did not do.
type outcome struct {
	Device string `json:"deviceId"`
	Code   string `json:"errorCode"`
	Status string `json:"errorStatus"`
}

// bulk carries out each order by itself; those that fail are listed.
func (h *Hub) bulk(r *http.Request) (any, error) {
	var orders []order
	if err := read(r, &orders); err != nil {
		return nil, err
	}
	if len(orders) > maxBulk {
		return nil, badRequest("%d devices, at most %d are taken at once", len(orders), maxBulk)
	}
	failed := []outcome{}
	for _, o := range orders {
		if err := h.carryOut(o); err != nil {
			var p *problem
			if !errors.As(err, &p) {
				return nil, err
			}
			failed = append(failed, outcome{o.ID, p.code, p.text})
		}
	}
	return map[string]any{"isSuccessful": len(failed) == 0, "errors": failed, "warnings": []any{}}, nil
}

func (h *Hub) carryOut(o order) error {
	id := wire.JoinID(o.ID, o.ModuleID)
	if err := checkID(id); err != nil {
		return badRequest("%v", err)
	}
	tag := o.Tag
	if tag == "" {
		tag = "*"
	}
	_, exists := h.registry.get(id)
	switch o.Mode {
	case "create":
		tag = ""
	case "createOrUpdate", "createOrUpdateIfMatchETag":
		if !exists {
			tag = ""
		}
	case "update", "updateIfMatchETag":
	case "delete", "deleteIfMatchETag":
		return h.erase(id, tag)
	default:
		return &problem{http.StatusBadRequest, "ArgumentInvalid", "importMode " + o.Mode + " is not known"}
	}
	_, err := h.write(id, o.identity, tag)
	return err
}
