package access

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[secret]"

// Secret is a value that must not be printed: every formatting of it says "[secret]". Convert it to
// a string where it has to be shown once.
type Secret string

// Format covers every verb of package fmt, also inside exported fields of other values.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

func (Secret) String() string { return redacted }

// LogValue keeps it out of structured logs.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps it out of JSON, YAML and flag defaults.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MasterKey is the key that everything else is derived from: 32 random bytes. It prints like a
// [Secret].
type MasterKey []byte

// Format covers every verb of package fmt.
func (MasterKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

func (MasterKey) String() string { return redacted }

// LogValue keeps it out of structured logs.
func (MasterKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps it out of JSON and YAML.
func (MasterKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
