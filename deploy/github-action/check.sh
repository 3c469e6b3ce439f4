#!/usr/bin/env bash
# What the action does, from its environment alone: validate, then show what the change does.
set -uo pipefail

common=(--namespace "$SCRIPTOPS_NAMESPACE")
validate=("${common[@]}" --output github
    --report "sarif=$SCRIPTOPS_SARIF" --report "junit=$SCRIPTOPS_JUNIT"
    --report "markdown=$GITHUB_STEP_SUMMARY")
[[ $SCRIPTOPS_STRICT == true ]] && validate+=(--strict)

# A checkout of one commit does not have the base; a new branch has none.
base=$SCRIPTOPS_BASE
if [[ -z $base || $base =~ ^0+$ ]]; then
    base=
elif ! git cat-file -e "$base^{commit}" 2>/dev/null; then
    git fetch --quiet --no-tags --depth=1 origin "$base" || base=
fi
[[ -n $base ]] && validate+=(--base "$base")

code=0
scriptops validate "${validate[@]}" -- "$SCRIPTOPS_PATH" || code=$?

if [[ $SCRIPTOPS_DIFF == true && -n $base && $code -lt 2 ]]; then
    diff=("${common[@]}" --output markdown)
    [[ -n $SCRIPTOPS_CONTROLLER_URL ]] && diff+=(--controller "$SCRIPTOPS_CONTROLLER_URL")
    # That something changes (1) is what a pull request is for; only an error (2) is one.
    scriptops diff "${diff[@]}" -- "$base..HEAD" "$SCRIPTOPS_PATH" >>"$GITHUB_STEP_SUMMARY"
    [[ $? -le 1 ]] || code=2
fi

results=(clean findings error)
{
    echo "result=${results[code > 2 ? 2 : code]}"
    delimiter=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
    printf 'sarif-file<<%s\n%s\n%s\n' "$delimiter" "$SCRIPTOPS_SARIF" "$delimiter"
} >>"$GITHUB_OUTPUT"
exit "$code"
