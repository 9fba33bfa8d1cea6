package luks

import (
	"fmt"
	"strconv"
	"strings"
)

// checkRequirements returns an error if the header has requirements for the
// activation of the volume (LUKS2 3.5). In the specification they are an array;
// cryptsetup writes them as the member "mandatory" of an object.
func checkRequirements(config object) error {
	if !config.has("requirements") {
		return *config.err
	}
	holder, name := config, "requirements"
	if raw := config.members[name]; raw[0] == '{' {
		holder, name = config.object(name), "mandatory"
		if !holder.has(name) {
			return *config.err
		}
	}
	required := holder.texts(name)
	if *config.err != nil || len(required) == 0 {
		return *config.err
	}
	if r := required[0]; r == "offline-reencrypt" || strings.HasPrefix(r, "online-reencrypt") {
		return errReencryption
	}
	return fmt.Errorf("requirement %s: %w", printable(required[0]), ErrUnsupported)
}

// errReencryption is returned for a volume that has two keys during a
// reencryption (LUKS2 4.9).
var errReencryption = fmt.Errorf("reencryption under way, to be finished by cryptsetup reencrypt: %w", ErrUnsupported)

// checkReencryption returns an error if a keyslot belongs to a reencryption
// (LUKS2 3.2.2).
func checkReencryption(keyslots object) error {
	for _, id := range keyslots.ids() {
		if keyslots.object(strconv.Itoa(id)).text("type") == "reencrypt" {
			return errReencryption
		}
	}
	return *keyslots.err
}
