# Fetches the sources of a branch and builds the program. Parameters: sources, repository, branch, python, part.
if ! command -v git >/dev/null 2>&1; then
    say lacks git
    exit 0
fi
GIT_TERMINAL_PROMPT=0
export GIT_TERMINAL_PROMPT
{
    if [ -d "$sources/.git" ]; then
        git -C "$sources" remote set-url origin "$repository" &&
            git -C "$sources" fetch --depth 1 origin "refs/heads/$branch" &&
            git -C "$sources" reset --hard FETCH_HEAD
    else
        mkdir -p "$(dirname "$sources")" && git clone --depth 1 --branch "$branch" -- "$repository" "$sources"
    fi && cd "$sources" && "$python" build/zipapp.py && cp dist/rbee.pyz "$part"
    echo "$?" >"$part.status" # a pipeline's exit status is that of its last command
} </dev/null 2>&1 | while IFS= read -r line; do say line "$line"; done
say built "$(cat "$part.status")"
rm -f "$part.status"
