package pool

import "time"

// State says how far the making of an object has come.
type State string

// These are the states of an object. In Making and Deleting its image may be missing or
// incomplete.
const (
	Making   State = "making"
	Ready    State = "ready"
	Deleting State = "deleting"
)

// Format says how far the making of a file system has come.
type Format string

// These are the states of a file system. A volume in Formatting was never mounted, and never a device of a pod.
const (
	Blank      Format = ""
	Formatting Format = "formatting"
	Formatted  Format = "formatted"
)

// Settings are the properties of a volume that never change. Two requests for a volume
// with one name must agree on them.
type Settings struct {
	Thick     bool   `json:"thick,omitempty"`
	DirectIO  string `json:"direct_io,omitempty"` // auto, on, off
	Encrypted bool   `json:"encrypted,omitempty"` // the image is a LUKS2 volume
	FSType    string `json:"fs_type,omitempty"`   // empty for a raw block volume
	// SourceVolume or SourceSnapshot is the id of the object that the volume is a copy of.
	SourceVolume   string `json:"source_volume,omitempty"`
	SourceSnapshot string `json:"source_snapshot,omitempty"`
	// Ephemeral says that the volume lives as long as its pod.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Layered says that the volume is a copy-on-write store from its beginning, if files cannot
	// share blocks. Snapshots can then be made while it is in use.
	Layered bool `json:"layered,omitempty"`
}

// Range is the range of sizes that the request for a volume allowed, in bytes. 0 stands for
// no bound.
type Range struct {
	Required int64 `json:"required,omitempty"`
	Limit    int64 `json:"limit,omitempty"`
}

// Volume is the record of a volume.
type Volume struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"` // as the caller chose it
	State    State    `json:"state"`
	Size     int64    `json:"size"` // of the device, in bytes
	Asked    Range    `json:"asked"`
	Settings Settings `json:"settings"`

	// FSType is the file system in the image. LUKS is the same for the LUKS header.
	FSType string `json:"made_fs_type,omitempty"`
	FS     Format `json:"fs,omitempty"`
	LUKS   Format `json:"luks,omitempty"`

	// Top is the layer that the volume writes to, empty if it has an image of its own. Next is
	// the layer that is about to become Top. A crash leaves it, and both have the same content
	// unless a device has Next.
	Top  string `json:"top,omitempty"`
	Next string `json:"next,omitempty"`

	// Stage is where the volume is staged, nil if it is not.
	Stage        *Stage        `json:"stage,omitempty"`
	Publications []Publication `json:"publications,omitempty"`
}

// Stage records a NodeStageVolume call.
type Stage struct {
	Path    string   `json:"path"`
	Block   bool     `json:"block,omitempty"`
	FSType  string   `json:"fs_type,omitempty"`
	Options []string `json:"options,omitempty"` // mount options
}

// Publication records a NodePublishVolume call.
type Publication struct {
	Target   string   `json:"target"`
	ReadOnly bool     `json:"read_only,omitempty"`
	Mode     string   `json:"mode"` // access mode
	Block    bool     `json:"block,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Snapshot is the record of a snapshot.
type Snapshot struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	State  State     `json:"state"`
	Source string    `json:"source"` // id of the volume
	Size   int64     `json:"size"`   // of the volume, in bytes
	Made   time.Time `json:"made"`
	// Layer is the layer that the snapshot shows, empty if it has an image of its own.
	Layer string `json:"layer,omitempty"`

	// Encrypted, FSType, FS and LUKS are those of the volume.
	Encrypted bool   `json:"encrypted,omitempty"`
	FSType    string `json:"made_fs_type,omitempty"`
	FS        Format `json:"fs,omitempty"`
	LUKS      Format `json:"luks,omitempty"`
}

// Layer is the record of a layer. It is an image, or a copy-on-write store above another layer.
type Layer struct {
	ID     string `json:"id"`
	State  State  `json:"state"`
	Size   int64  `json:"size"`             // of the disk that it shows, in bytes
	Parent string `json:"parent,omitempty"` // the layer below a store

	// Next is a layer that is about to get the content of this store and of its parent.
	Next string `json:"next,omitempty"`
	// Into is the layer that has the content of this one, which was merged into it. A merged layer
	// has its image and its parent only as long as a device can use them.
	Into string `json:"into,omitempty"`
}

// IsStore reports whether the layer is a store.
func (l *Layer) IsStore() bool { return l.Parent != "" }

// IsMerged reports whether another layer has the content of this one.
func (l *Layer) IsMerged() bool { return l.Into != "" }

// HeaderBytes is the part of an encrypted image in front of the data.
const HeaderBytes = 16 << 20

// ImageSize returns the size of the volume's image, or of the disk that its layers show.
func (v *Volume) ImageSize() int64 {
	if v.Settings.Encrypted {
		return v.Size + HeaderBytes
	}
	return v.Size
}
