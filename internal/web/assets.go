package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var static embed.FS

// assets are the addresses of the files that pages load. They hold a hash of the
// content, so that a browser may keep a file for good and never keeps an old one.
type assets struct{ CSS, Script, Icon string }

type file struct {
	content []byte
	kind    string
}

func loadAssets() (assets, map[string]file) {
	files := map[string]file{}
	load := func(name, kind string) string {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			panic(err) // the file is compiled in
		}
		sum := sha256.Sum256(b)
		ext := path.Ext(name)
		hashed := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		files[hashed] = file{b, kind}
		return "/static/" + hashed
	}
	return assets{
		CSS:    load("lockstep.css", "text/css; charset=utf-8"),
		Script: load("lockstep.js", "text/javascript; charset=utf-8"),
		Icon:   load("icon.svg", "image/svg+xml"),
	}, files
}

func (p *pages) asset(w http.ResponseWriter, r *http.Request) {
	f, ok := p.files[r.PathValue("name")]
	if !ok {
		plain(w, http.StatusNotFound, "not found\n")
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(f.content)
}
