package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ublk-loop/ublk-loop/internal/jsontext"
)

// config holds the parts of a container's configuration that this package needs
// (config.json of the OCI runtime specification).
type config struct {
	Annotations map[string]string `json:"annotations"`
	Root        struct {
		Path string `json:"path"`
	} `json:"root"`
	Linux json.RawMessage `json:"linux"`
}

func parseConfig(text []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", jsontext.Explain(err))
	}
	return c, nil
}

// wantsImage reports whether the container asks for a root from an image.
func (c *config) wantsImage() bool {
	_, wanted := c.Annotations[imageAnnotation]
	return wanted && !c.isSandbox()
}

// sandboxTypes are the annotations with which containerd and CRI-O distinguish a pod's
// sandbox from its containers.
var sandboxTypes = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}

// isSandbox reports whether the container is a pod's sandbox. A sandbox also gets the
// pod's annotations, but its program comes from an image of the engine.
func (c *config) isSandbox() bool {
	return slices.ContainsFunc(sandboxTypes, func(key string) bool { return c.Annotations[key] == "sandbox" })
}

// hasHookRoot reports whether the hooks have already supplied the root.
func (c *config) hasHookRoot() bool { return isBelow(hooksDir, c.Root.Path) }

// object is a configuration, or a part of it, that this package edits. All other fields
// stay, known or unknown.
type object map[string]json.RawMessage

// hook is an entry of a configuration's hooks.
type hook struct {
	Path string   `json:"path"`
	Args []string `json:"args"`
}

// editConfig returns the configuration with an edit applied.
func editConfig(text []byte, edit func(object) error) ([]byte, error) {
	var c object
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, jsontext.Explain(err)
	}
	if c == nil {
		return nil, errors.New("not an object")
	}
	if err := edit(c); err != nil {
		return nil, err
	}
	return plainJSON(c)
}

// setRoot sets the path of the container's root.
func (o object) setRoot(path string) error {
	return o.editMember("root", func(root object) error {
		var err error
		root["path"], err = plainJSON(path)
		return err
	})
}

// addHook appends a hook to the hooks of a moment in the container's life.
func (o object) addHook(moment string, h hook) error {
	return o.editMember("hooks", func(hooks object) error { return hooks.appendTo(moment, h) })
}

// appendTo appends an entry to a list. It makes the list if it does not exist.
func (o object) appendTo(list string, entry any) error {
	var entries []json.RawMessage
	if o[list] != nil {
		if err := json.Unmarshal(o[list], &entries); err != nil {
			return fmt.Errorf("%s: %w", list, jsontext.Explain(err))
		}
	}
	text, err := plainJSON(entry)
	if err != nil {
		return err
	}
	o[list], err = plainJSON(append(slices.Clip(entries), text))
	return err
}

// editMember edits a member object. It makes the member if it does not exist.
func (o object) editMember(name string, edit func(object) error) error {
	var member object
	if o[name] != nil {
		if err := json.Unmarshal(o[name], &member); err != nil {
			return fmt.Errorf("%s: %w", name, jsontext.Explain(err))
		}
	}
	if member == nil {
		member = object{}
	}
	if err := edit(member); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var err error
	o[name], err = plainJSON(member)
	return err
}

// plainJSON is json.Marshal without the escapes for <, > and &.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
