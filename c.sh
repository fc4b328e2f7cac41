comp 'flux apply app.db --to 0' 'flux apply app.db --to' 4
comp 'flux apply app.db --to ' 'flux apply app.db --to' 4
comp 'flux apply postgresql://u@h/x --to 0' 'x x x x' 4
comp 'flux rollback --config flux.toml --to 0' 'x x x x' 5
