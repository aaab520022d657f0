# lockstep: see README.md. Every target works on a fresh checkout.
.PHONY: build demo test race check lint generate bench prove mutants crashes properties fuzz soak picture clean

export CGO_ENABLED = 0
TOOL = go tool -modfile=tools/go.mod

build: ## the binary ./lockstep
	go build -trimpath -o lockstep ./cmd/lockstep

demo: build ## twins, a sample company, a first full sync, and the pages to look at
	./lockstep demo

test: ## all tests; needs Chromium and the PostgreSQL server programs
	go test -timeout 30m ./...

race: ## all tests with the race detector, which needs a C compiler
	CGO_ENABLED=1 go test -race -timeout 60m ./...

check: lint generate ## formatting, vet, linters, generated files, the repository's own rules
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these files"; exit 1; }
	go vet ./...
	go mod verify
	git diff --exit-code -- '*_templ.go'
	go test -count=1 ./internal/architecture

lint:
	$(TOOL) golangci-lint run ./...

generate: ## the pages' Go code from their templates
	$(TOOL) templ generate -path internal/web

SEEDS = 1000
ACTIONS = 200
BASE = 1
prove: SHELL = bash
prove: .SHELLFLAGS = -o pipefail -c
prove: ## SEEDS simulated lives of the product, of ACTIONS each, from BASE on; a failing one is made small and printed with how to replay it
	go test ./internal/prove -v -count=1 -timeout 0 -run TestSeed -seeds=$(SEEDS) -actions=$(ACTIONS) -base=$(BASE) -shrink=100 | grep -v -e '^=== ' -e '--- PASS: TestSeed/'

DRAWS = 1000000
DAMAGED = 100000000
properties: ## what must hold for every value, time and order, in DRAWS drawn cases where one costs microseconds, and in proportion where it takes calls; DAMAGED pages of the CRM, read as encoding/json reads them; and 500 random states, in which a run does what its preview says
	RAPID_CHECKS=$(DRAWS) go test -count=1 -timeout 0 ./internal/merge ./internal/transform ./internal/pagescan -run 'Field|Equal|Apart|Membership|Master|RoundTrip|Settle|NormalizeEmail|Agrees|Memory'
	RAPID_CHECKS=$(DRAWS) go test -count=1 -timeout 0 ./internal/journal ./internal/remote ./internal/jobs ./internal/adapter/dynamics/webapi ./internal/adapter/dotdigital -run 'CutOff|TestPace|EveryChange|TestLookout'
	go test -count=1 -timeout 0 ./internal/pagescan -run TestDamagedPages -damaged=$(DAMAGED)
	go test -count=1 -timeout 0 ./internal/e2e -run TestPreviewEqualsReality -states=500

FUZZTIME = 60s
fuzz: ## each fuzz target for FUZZTIME
	@for target in $$(grep -rho --include='*_test.go' '^func Fuzz[A-Za-z]*' internal | sort -u | cut -c6-); do \
		for file in $$(grep -rl --include='*_test.go' "^func $$target(" internal); do \
			echo "$$target in $$(dirname $$file)"; go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x | tail -3; \
		done; done

mutants: ## every planted bug must be caught by the simulation; half an hour
	go test ./internal/prove -v -count=1 -timeout 0 -run TestMutants -mutants

crashes: ## 500 second crashes during a recovery, every write and sync of the database failing, sixty signals; an hour
	go test ./internal/e2e -v -count=1 -timeout 0 -run 'TestSecondCrash|TestDiskFails|TestSignals' -thorough -draw=$(BASE) | grep -v -e '^=== ' -e '--- PASS: Test.*/'

SOAK = 1h
soak: ## for SOAK, two rivals start the program on one folder, it syncs by itself under edits on both sides and is killed; then nothing may be lost, there twice or come back
	nice go test ./internal/e2e -v -count=1 -timeout 0 -run 'TestSoak$$' -soak=$(SOAK)

bench: ## speed beside the floor; minutes, on an idle machine
	go run ./bench

picture: build ## docs/demo.svg from a real run
	script -qec "stty cols 100; ./lockstep demo --once" /dev/null | go -C tools run ./termsvg lockstep demo --once > docs/demo.svg

clean:
	rm -rf lockstep dist
