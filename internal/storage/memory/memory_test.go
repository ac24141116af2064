package memory_test

import (
	"testing"

	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

func TestContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Backend {
		b := memory.New()
		t.Cleanup(func() { _ = b.Close() })
		return b
	})
}
